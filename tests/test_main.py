"""The command line: JSON, exit codes, plain sentences, and the database in someone else's hands."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from backend import __main__ as command
from backend import rundir
from backend.config import RECIPES
from backend.errors import ConfigError
from backend.jobs import worker
from backend.store.database import Database

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _small_recipes(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_RECIPES", "tests.recipes")


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "backend", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def last(done: "subprocess.CompletedProcess[str]") -> Any:
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def counted() -> int:
    database = Database()
    try:
        with database.cursor() as cursor:
            return int(cursor.execute("SELECT count(*) FROM inspections").one())
    finally:
        database.close()


def test_a_recipe_runs_here_and_takes_its_rows_in() -> None:
    done = call("trial", "--do", "write", "--steps", "3", "--json")
    told = last(done)
    assert done.returncode == 0 and told["state"] == "completed" and told["result"] == {"began_with": 0, "inspected": 30}
    assert rundir.read_json(rundir.run_path(told["run_id"]) / "job.json")["by"] == "command line"
    assert counted() == 30


def test_what_the_recipe_prints_does_not_mix_with_the_answer() -> None:
    done = call("trial", "--do", "print", "--json")
    assert len(done.stdout.splitlines()) == 1 and last(done)["state"] == "completed"
    assert "from a child" in (rundir.run_path(last(done)["run_id"]) / "log.txt").read_text()


def test_a_summary_for_people() -> None:
    done = call("trial", "--do", "count")
    assert done.returncode == 0 and done.stdout.startswith("Done: ") and "  steps: 3" in done.stdout


def test_files_that_could_not_be_used_are_named_and_nothing_at_all_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    run = rundir.create("inspect", {}, state="completed")
    rows = [dict(file_name=f"{i}.jpg", reason="The file is empty.") for i in range(12)]
    rundir.write_part(run, "refused", rows, 1)
    for inspected, code in ((3, 0), (0, 1)):
        rundir.write_json(run / "result.json", dict(inspected=inspected, refused=12))
        assert command.tell(run, as_json=False) == code
        said = capsys.readouterr()
        assert said.out.splitlines()[-2:] == ["  not usable: 9.jpg: The file is empty.", "  and 2 more"]
        assert ("Nothing of it could be looked at." in said.err) == bool(code)
    assert command.show(dict(images=1, refused=rows), False, "Done") == 0 and "  refused: 12" in capsys.readouterr().out


def test_a_summary_tells_what_to_know_before_trusting_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    run = rundir.create("trial", {}, state="completed")
    rundir.write_json(run / "result.json", dict(
        kid=1.5, best=dict(strength=0.3, copied=None), rows=[dict(a=1)], deep=dict(a=dict(b=1)), none={},
        warnings=["The parents were few."], notes=["Two were left out."]))
    assert command.tell(run, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  kid: 1.5", "  best: strength 0.3, copied None", "  Two were left out.",
                                                        "  The parents were few."]


@pytest.mark.parametrize(("arguments", "sentence", "code"), [
    (("trial", "--do", "raise"), "The folder is empty.", 1),
    (("trial", "--do", "plain"), "Something went wrong: KeyError: 'missing'. The log has the details.", 1),
])
def test_failures_are_one_sentence(arguments: tuple[str, ...], sentence: str, code: int) -> None:
    done = call(*arguments, "--json")
    assert done.returncode == code and last(done)["error"].startswith(sentence)
    assert sentence in done.stderr


@pytest.mark.parametrize(("arguments", "sentence", "code"), [
    (("trial", "--steps", "-1"), "steps must be between 0 and 10000, not -1.", 1),
    (("trial", "--steps", "many"), "argument --steps: invalid int value: 'many'", 2),
    (("train-detector", "--size", "xxl"), "argument --size: invalid choice", 2),
])
def test_settings_that_cannot_be_are_one_sentence(arguments: tuple[str, ...], sentence: str, code: int,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: nothing is begun."""
    import tests.recipes  # noqa: F401

    try:
        returned = command.main([*arguments, "--json"])
    except SystemExit as end:
        returned = int(str(end.code))
    said = capsys.readouterr()
    assert returned == code and json.loads(said.out.splitlines()[-1])["error"].startswith(sentence) and sentence in said.err


def test_ctrl_c_cancels() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)             # a shell's background jobs ignore it, and so would this child
    process = subprocess.Popen([sys.executable, "-m", "backend", "trial", "--do", "count", "--steps", "1000", "--pause", "0.05", "--json"],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while not [p for p in rundir.find("trial") if (p / "progress.json").exists()]:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["state"] == "canceled" and "Traceback" not in err
    assert rundir.read_json(next(rundir.find("trial")) / "state.json")["state"] == "canceled"


def test_a_killed_run_is_taken_up_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = [sys.executable, "-m", "backend", "trial", "--do", "write", "--steps", "5", "--pause", "0.4"]
    process = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not [p for p in rundir.find("trial") if rundir.parts(p, "inspections")]:
        assert time.monotonic() < until
        time.sleep(0.02)
    monkeypatch.setattr(worker, "TAKE_S", 0.0)
    with pytest.raises(ConfigError, match="still going on"):
        worker.again(next(rundir.find("trial")).name, lambda progress: None)
    process.kill()
    process.wait()
    done = call("resume", next(rundir.find("trial")).name, "--json")
    assert done.returncode == 0 and last(done)["result"]["began_with"] > 0 and counted() == 50
    assert "nothing to resume" in last(call("resume", next(rundir.find("trial")).name, "--json"))["error"]
    assert "no run" in last(call("resume", "none", "--json"))["error"]


def test_yes_and_no_are_flags() -> None:
    options = vars(command.parser(False).parse_args(["train-distilled", "--no-distill", "--teach"]))
    assert options["distill"] is False and options["teach"] is True


def test_with_the_database_in_other_hands_the_run_still_counts_later() -> None:
    hold = "from backend.store.database import Database\nd = Database()\nprint('held', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    done = call("trial", "--do", "write", "--steps", "2", "--json")
    assert done.returncode == 0 and last(done)["result"]["inspected"] == 20
    refused = call("rebuild", "--json")
    assert refused.returncode == 1 and "Another Diffspect is using the database" in last(refused)["error"]
    other.communicate("\n", timeout=20)
    again = call("rebuild", "--json")
    assert again.returncode == 0 and last(again)["parts"] > 0 and counted() == 20


def test_the_demo_is_made_once() -> None:
    there = rundir.create("demo", {}, plant="demo", state="completed")
    done = call("demo", "--json")
    assert done.returncode == 0 and last(done)["run_id"] == there.name
    assert "there already" in call("demo").stdout


def test_every_recipe_is_a_command_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for name, config in RECIPES.items():
        with pytest.raises(SystemExit) as ended:
            command.main([name, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        for field in fields(config):
            called = field.metadata.get("flag", field.name)
            in_place = {"import": "path", "watch": "images", "restore": "file"}.get(name) == field.name      # without a flag in front
            assert in_place or f"--{called.replace('_', '-')}" in text


def test_flags_take_dashes_and_underscores_and_paths_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for flag in ("--split-prefix", "--split_prefix"):
        options = vars(command.parser(False).parse_args(["import", "pictures", "--name", "n", flag, "det-", "--splits", "lists"]))
        assert options["split_prefix"] == "det-" and options["name"] == "n" and "seed" not in options
    assert command.absolute("path", options["path"]) == str(tmp_path / "pictures")
    (tmp_path / "sd15").mkdir()
    assert command.absolute("prior", "sd15") == "sd15", "a name, unless a checkpoint lies there"
    (tmp_path / "sd15" / "model_index.json").touch()
    assert command.absolute("prior", "sd15") == str(tmp_path / "sd15") and command.absolute("prior", "") == ""
    assert command.absolute("weights", "steel start") == "steel start", "a model of one's own has a name too"
    (tmp_path / "yolo.pt").touch()
    assert command.absolute("weights", "yolo.pt") == str(tmp_path / "yolo.pt")
    assert command.absolute("name", "n") == "n" and command.absolute("images", 30) == 30 and command.absolute("out", "") == ""


def test_a_class_is_called_class() -> None:
    for recipe in ("synthesize", "search-synthesis"):
        options = vars(command.parser(False).parse_args([recipe, "--dataset", "neu", "--class", "scratches", "--name", "new"]))
        config = RECIPES[options.pop("command")].from_json({k: v for k, v in options.items() if k != "json"})
        assert config.to_json().items() >= dict(dataset="neu", class_name="scratches", name="new").items()
    done = call("synthesize", "--class", "scratches", "--count", "0", "--json")
    assert done.returncode == 1 and last(done)["error"] == "count must be between 1 and 1000000, not 0."


def test_progress_without_a_terminal_is_a_line_now_and_then(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ECHO_S", 0.0)
    echo = command.Echo()
    echo({"step": 3, "total": 10, "eta_s": 120.0, "message": "Reading"})
    echo.close()
    assert capfd.readouterr().err == "3 of 10, about 2 min left  Reading\n"
