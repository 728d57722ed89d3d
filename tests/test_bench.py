"""`bench anomaly`: what counts as a category, how a stopped benchmark goes on, what the table says; and PIPED, which has that layout."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tests.recipes as small
from backend import rundir
from backend.config import TrainAnomaly
from backend.errors import DiffspectError, InputError
from backend.jobs import bench
from tests.benchmarks.record import SHARED

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("anomaly", "diffusion", "synthesis", "teacher")
PIPED = SHARED / "data" / "PIPED"
TINY = ("--source", "noise", "--steps", "2", "--batch", "2", "--imgsz", "64")


def drawn(folder: Path, seed: int = 0) -> Path:
    """A category: even grey plates, and plates with a white spot."""
    rng = np.random.default_rng(seed)
    for kind, count in (("train/good", 8), ("test/good", 3), ("test/spot", 3)):
        (folder / kind).mkdir(parents=True)
        (folder / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture, mask = rng.integers(90, 110, (64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
            if kind == "test/spot":
                y, x = rng.integers(8, 44, 2)
                mask[y:y + 12, x:x + 12] = 255
                picture[mask > 0] = 240
                Image.fromarray(mask).save(folder / "ground_truth" / "spot" / f"{i:03d}_mask.png")
            Image.fromarray(picture).save(folder / kind / f"{i:03d}.png")
    return folder


def call(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "backend", "bench", "anomaly", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def silent(progress: dict[str, Any]) -> None:
    """Progress that nobody reads."""


def test_categories_are_the_folders_of_that_layout(tmp_path: Path) -> None:
    one, two = drawn(tmp_path / "b"), drawn(tmp_path / "a")
    (tmp_path / "readme").mkdir()
    assert bench.categories(tmp_path) == [two, one] and bench.categories(one) == [one]
    with pytest.raises(InputError, match="no category in the layout of MVTec AD"):
        bench.categories(tmp_path / "readme")
    with pytest.raises(InputError, match="no category"):
        bench.categories(tmp_path / "missing")


def test_a_completed_run_counts_and_a_stopped_one_is_taken_up(data_folder: Path) -> None:
    config = small.Trial(do="count", name="a")
    first = bench.made(config, silent)
    assert bench.made(config, silent) == first and bench.made(small.Trial(do="count", name="b"), silent) != first
    rundir.set_state(first, "interrupted")
    assert bench.made(config, silent) == first
    state = rundir.read_json(first / "state.json")
    assert state["state"] == "completed" and state["attempt"] == 2


def test_a_run_of_another_program_does_not_count(data_folder: Path) -> None:
    config = small.Trial(do="count", name="a")
    first = bench.made(config, silent)
    job = rundir.read_json(first / "job.json")
    rundir.write_json(first / "job.json", job | dict(code_version="0.0.1"))
    second = bench.made(config, silent)
    assert second != first and bench.made(config, silent) == second


@pytest.mark.slow
def test_what_changed_in_the_folder_is_seen(data_folder: Path, tmp_path: Path) -> None:
    kind, config = drawn(tmp_path / "kind"), TrainAnomaly(source="noise", steps=1, batch=2, imgsz=64)
    trained, reused = list[int](), list[bool]()
    for change in (False, False, True):
        if change:
            (kind / "test" / "good" / "000.png").unlink()
        reused.append(bench.anomaly(kind, config, silent)["reused"])
        trained.append(len(list(rundir.find("train-anomaly"))))
    assert trained == [1, 1, 2] and reused == [False, True, False]


def test_a_model_of_another_program_is_not_taken_for_this_ones(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the program's, so neither a completed run of an earlier one counts, nor is one that was stopped taken up."""
    kind, asked = drawn(tmp_path / "sets" / "kind"), list[str]()
    (tmp_path / "trained" / "model").mkdir(parents=True)
    rundir.write_json(tmp_path / "trained" / "model" / "model.json", {"metrics": {"test": {"image_auroc": 0.9}}})
    monkeypatch.setattr(bench, "made", lambda config, echo: (asked.append(config.name), tmp_path / "trained")[1])
    for code in ("first", "first", "second"):
        monkeypatch.setattr(bench, "code", lambda code=code: code)
        assert bench.anomaly(kind, TrainAnomaly(seed=4), silent) == dict.fromkeys(bench.FIGURES) | dict(image_auroc=90.0, reused=False)
    assert asked == ["sets-kind-4-first", "sets-kind-4-first", "sets-kind-4-second"]


def test_any_change_of_what_makes_a_figure_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anomaly").mkdir()
    (tmp_path / "anomaly" / "learn.py").write_text("STEPS = 1")
    monkeypatch.setattr(bench, "BACKEND", tmp_path)
    first = bench.code()
    (tmp_path / "other.py").write_text("")
    assert bench.code() == first
    (tmp_path / "anomaly" / "learn.py").write_text("STEPS = 2")
    assert bench.code() != first


def test_the_program_is_all_that_the_recipe_takes_from_the_methods() -> None:
    """Modules of the layers that make defects, features and maps, as far as imports lead from the recipe."""
    listed = {path for pattern in bench.SOURCES for path in bench.BACKEND.glob(pattern)}
    assert all(list(bench.BACKEND.glob(pattern)) for pattern in bench.SOURCES)
    for path in listed:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[:2] in ([["backend", k] for k in METHODS]):
                names = [node.module, *(f"{node.module}.{n.name}" for n in node.names)]
                files = [bench.BACKEND.parent / f"{name.replace('.', '/')}.py" for name in names]
                assert not {f for f in files if f.exists()} - listed, path


def test_a_failure_is_the_runs_own_sentence(data_folder: Path) -> None:
    with pytest.raises(DiffspectError, match="a: The folder is empty. The log is "):
        bench.made(small.Trial(do="raise", name="a"), silent)


def test_the_mean_is_of_what_was_told() -> None:
    none: bench.Figures = dict.fromkeys(bench.FIGURES)
    rows = {"a": {**none, "image_auroc": 90.0}, "b": {**none, "image_auroc": 95.0, "aupro": 70.0}}
    assert bench.mean(rows) == {**none, "image_auroc": 92.5, "aupro": 70.0}
    assert bench.line("a", rows["b"]).split() == ["a", "95.0", "70.0"] and len(bench.line("a", none)) <= len(bench.titles())
    assert bench.line("a", rows["b"] | dict(reused=True)).split() == ["a", "95.0", "70.0", "reused"]
    assert bench.line(bench.SOURCE, bench.PUBLISHED).split() == ["arXiv", "2604.19240", "98.4", "98.3"]


@pytest.mark.slow
def test_a_table_of_every_category_beside_what_was_published(data_folder: Path, tmp_path: Path) -> None:
    drawn(tmp_path / "sets" / "one")
    drawn(tmp_path / "sets" / "two", 1)
    done = call("--mvtec", str(tmp_path / "sets"), *TINY)
    assert done.returncode == 0, done.stderr
    titles, *rows = done.stdout.splitlines()
    assert titles.split() == ["image", "AUROC", "pixel", "AUROC", "pixel", "AP", "AUPRO"]
    assert [row.split()[0] for row in rows] == ["one", "two", "mean", "arXiv"] and len(rows[0].split()) == 5
    made = sorted(p.name for p in rundir.find("train-anomaly"))
    assert len(made) == 2
    again = call("--mvtec", str(tmp_path / "sets"), *TINY, "--json")
    told = json.loads(again.stdout.splitlines()[-1])
    assert sorted(p.name for p in rundir.find("train-anomaly")) == made                            # nothing was trained anew
    assert set(told["categories"]) == {"one", "two"} and told["published"]["image_auroc"] == 98.4
    assert all(f["reused"] for f in told["categories"].values())
    assert told["mean"]["pixel_ap"] == pytest.approx(np.mean([f["pixel_ap"] for f in told["categories"].values()]), abs=0.01)


def test_no_category_is_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    done = call("--mvtec", str(tmp_path), "--json")
    assert done.returncode == 1 and "no category in the layout of MVTec AD" in json.loads(done.stdout)["error"]


@pytest.mark.slow
@pytest.mark.skipif(not PIPED.exists(), reason="the data is not here")
def test_piped_through_the_published_scorer(data_folder: Path, tmp_path: Path) -> None:
    kind = PIPED / "PA_BDP01_TL"
    done = call("--mvtec", str(kind), *TINY, "--json")
    figures = json.loads(done.stdout.splitlines()[-1])["categories"][kind.name]
    name = rundir.read_json(next(rundir.completed("train-anomaly")) / "model" / "model.json")["name"]
    listing = kind / "splits" / "test.txt"
    subprocess.run([sys.executable, "-m", "backend", "predict", "--model", name, "--images", str(kind), "--list", str(listing),
                    "--out", str(tmp_path / "maps")], cwd=ROOT, check=True, capture_output=True)
    scored = subprocess.run([sys.executable, str(SHARED / "score" / "score_anomaly.py"), str(tmp_path / "maps"), str(kind), str(listing)],
                            check=True, capture_output=True, text=True)
    theirs = json.loads(scored.stdout)
    assert {k: figures[k] for k in bench.FIGURES} == pytest.approx({k: theirs[k] for k in bench.FIGURES}, abs=0.1)
