"""Backup and restore: whole or not at all, checked byte by byte, and the same rows again in an empty folder."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import rundir
from backend.config import Backup, Restore
from backend.data import images
from backend.errors import ConfigError, InputError, ResourceError, StoreError
from backend.jobs import archives
from backend.store import archive, restoring, scan, vault
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]


def quiet(**_: Any) -> None:
    """Nobody looks on."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small plant: a batch with its picture, a model, decisions, an alert channel."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "bundle")
    picture = b"not looked at here"
    image_id = images.sha256(picture)
    images.keep(picture, image_id, "PNG")
    plant.model("m1", {"pits": 0.4})
    run = plant.batch([dict(image_id=image_id, boxes=[("pits", 0.9)]), {}])
    (run / "log.txt").write_text("done")
    plant.decide("correct", run_id=run.name, inspection_ids=[], fields={"line": "L2"})
    (tmp_path / "data" / "alerts.toml").write_text("[line]\n")
    (tmp_path / "data" / "inspection.duckdb").write_bytes(b"derived")
    (tmp_path / "data" / "supervisor.lock").touch()
    yield tmp_path / "data"


def tree(root: Path) -> dict[str, bytes]:
    """Files that a backup has to bring back."""
    made_again = ("inspection.duckdb", "supervisor.lock")
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in vault.walk(root) if p.name not in made_again}


@pytest.mark.parametrize("name", ["backups", "whole.zip"])
def test_what_comes_back_is_what_was_there(data: Path, tmp_path: Path, name: str) -> None:
    told: list[dict[str, Any]] = []
    made = archive.backup(tmp_path / "to" / name, lambda **said: told.append(said))
    assert (made["runs"], made["left_out"], made["files"]) == (3, [], len(tree(data))) and told[-1]["step"] == told[-1]["total"]
    back = restoring.restore(tmp_path / "to" / name, tmp_path / "back", quiet)
    assert tree(tmp_path / "back") == tree(data) and back["files"] == made["files"]
    assert all((run / "parts").is_dir() for run in (tmp_path / "back" / "runs").glob("*/")), "a run that goes on writes there"
    picture = next(vault.walk(data / "images"))
    assert (tmp_path / "back" / picture.relative_to(data)).stat().st_mtime_ns == picture.stat().st_mtime_ns, "retention counts from it"


def test_every_table_is_the_same_in_an_empty_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "inspection.duckdb").unlink()
    live = Database()
    ingest(live)
    expected = plant.tables(live)
    live.close()
    assert expected["facts"] and expected["models"] and expected["events"] and expected["runs"]
    archive.backup(tmp_path / "to", quiet)
    made = archives.restore(Restore(file=str(tmp_path / "to"), into=str(tmp_path / "back")), None, quiet)
    assert made["parts"] > 0 and str(tmp_path / "back") in made["notes"][-1]
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "back"))
    again = Database()
    found = plant.tables(again)
    again.close()
    bundled = {name: [row for row in rows if "'run_id': ''" not in row] for name, rows in found.items()}      # the program's own model
    assert bundled == expected


def test_sessions_stay_and_the_witness_of_the_audit_log_is_taken_first(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is signed in here is not in a copy; entries written during the copy are not missed by the copy's witness."""
    (data / "access" / "sessions").mkdir(parents=True)
    for name in ("sessions/ab.json", "tries.json", "audit.json", "accounts.json"):
        (data / "access" / name).write_text('{"seq": 1}')
    real = archive._run

    def while_somebody_signs_in(*args: Any) -> bool:
        (data / "access" / "audit.json").write_text('{"seq": 2}')
        return real(*args)

    monkeypatch.setattr(archive, "_run", while_somebody_signs_in)
    archive.backup(tmp_path / "to", quiet)
    restoring.restore(tmp_path / "to", tmp_path / "back", quiet)
    assert {p.name: p.read_text() for p in vault.walk(tmp_path / "back" / "access")} == {
        "audit.json": '{"seq": 1}', "accounts.json": '{"seq": 1}'}


def test_half_a_restore_is_not_backed_up_as_a_whole(data: Path, tmp_path: Path) -> None:
    (data / archive.MARK).write_text("{}")
    with pytest.raises(StoreError, match="restored only in part"):
        archive.backup(tmp_path / "to", quiet)


def test_a_second_backup_copies_only_what_is_new(data: Path, tmp_path: Path) -> None:
    first = archive.backup(tmp_path / "to", quiet)
    assert first["copied_files"] == first["files"]
    same = archive.backup(tmp_path / "to", quiet)
    assert (same["copied_files"], same["files"]) == (0, first["files"])
    new = plant.batch([{}])
    third = archive.backup(tmp_path / "to", quiet)
    assert third["copied_files"] == len(tree(new)) and third["files"] == first["files"] + len(tree(new))
    assert [head["name"] for head in vault.heads(tmp_path / "to")] == [m["name"] for m in (third, same, first)]
    restoring.restore(Path(first["path"]), tmp_path / "first", quiet)
    restoring.restore(tmp_path / "to", tmp_path / "newest", quiet)
    assert new.name not in os.listdir(tmp_path / "first" / "runs") and new.name in os.listdir(tmp_path / "newest" / "runs")


def test_what_is_going_on_is_named_and_left_out_whole(data: Path, tmp_path: Path) -> None:
    training, waits = rundir.create("train-detector", {}, state="running"), rundir.create("inspect", {})
    (waits / "inbox").mkdir()
    (waits / "inbox" / "000000.bin").write_bytes(b"uploaded")
    own = rundir.create("backup", {"to": "x"}, state="running")
    made = archive.backup(tmp_path / "to", quiet, own.name)
    assert made["left_out"] == [dict(run_id=training.name, recipe="train-detector", state="running")]
    restoring.restore(tmp_path / "to", tmp_path / "back", quiet)
    there = os.listdir(tmp_path / "back" / "runs")
    assert waits.name in there and training.name not in there and own.name not in there
    assert (tmp_path / "back" / "runs" / waits.name / "inbox" / "000000.bin").read_bytes() == b"uploaded"


def test_of_a_folder_watch_that_goes_on_what_counts_is_taken(data: Path, tmp_path: Path) -> None:
    watch = rundir.create("watch", {"images": "/somewhere"}, state="running")
    for _ in range(3):
        plant.add(watch, [{}])
    rundir.write_json(watch / "watch.json", dict(number=2))           # the third group does not count yet
    archive.backup(tmp_path / "to", quiet)
    restoring.restore(tmp_path / "to", tmp_path / "back", quiet)
    back = tmp_path / "back" / "runs" / watch.name
    assert [p.name for p in rundir.parts(back)] == ["inspections-000001.parquet", "inspections-000002.parquet"]
    state = rundir.read_json(back / "state.json")
    assert state["state"] == "interrupted" and "Resume" in state["message"] and rundir.read_json(back / "watch.json")["number"] == 2


def test_a_run_that_changes_under_the_copy_is_copied_anew(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plant.batch([{}], end=False)
    plant.finish(run, "interrupted")
    before, turns = vault.Folder.put, [0]

    def meddled(self: vault.Folder, path: str, source: Path) -> vault.Kept:
        found = before(self, path, source)
        if source == run / "job.json" and turns[0] < 5:
            turns[0] += 1
            rundir.set_state(run, "interrupted", attempt=turns[0] + 1)
        return found

    monkeypatch.setattr(vault.Folder, "put", meddled)
    assert archive.backup(tmp_path / "to", quiet)["left_out"] == [dict(run_id=run.name, recipe="inspect", state="interrupted")]
    assert archive.backup(tmp_path / "to", quiet)["left_out"] == [], "it was still at the third look"
    restoring.restore(tmp_path / "to", tmp_path / "back", quiet)
    assert rundir.read_json(tmp_path / "back" / "runs" / run.name / "state.json")["attempt"] == 6


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    archive.backup(tmp_path / "to", quiet)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        restoring.restore(tmp_path / "to", tmp_path / "there", quiet)
    (tmp_path / "whole.zip").touch()
    with pytest.raises(InputError, match="overwrites nothing"):
        archive.backup(tmp_path / "whole.zip", quiet)
    for inside in (data / "backups", data, tmp_path):
        with pytest.raises(InputError, match="inside the data folder"):
            archive.backup(inside, quiet)


@pytest.mark.parametrize("name", ["backups", "whole.zip"])
def test_a_damaged_file_is_named_and_the_rest_is_there(data: Path, tmp_path: Path, name: str) -> None:
    archive.backup(tmp_path / name, quiet)
    if name.endswith("zip"):
        content = (tmp_path / name).read_bytes().replace(b"not looked at here", b"not looked at hers")
        (tmp_path / name).write_bytes(content)
    else:
        kept = tmp_path / name / "files" / (digest := images.sha256(b"not looked at here"))[:2] / digest
        kept.write_bytes(b"not looked at hers")
    with pytest.raises(InputError, match="1 of .* damaged or missing: images/"):
        restoring.restore(tmp_path / name, tmp_path / "back", quiet)
    assert "images/" in (tmp_path / "back" / archive.MARK).read_text()
    assert len(tree(tmp_path / "back")) == len(tree(data))              # one less, and the mark


def test_a_damaged_or_foreign_backup_is_refused(data: Path, tmp_path: Path) -> None:
    made = archive.backup(tmp_path / "to", quiet)
    listing = tmp_path / "to" / f"{made['name']}.parquet"
    listing.write_bytes(listing.read_bytes()[:-9])
    (tmp_path / "no.zip").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "to", tmp_path / "no.zip", tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError):
            restoring.restore(source, tmp_path / "back", quiet)
    assert not (tmp_path / "back").exists()


def test_no_name_leads_out_of_the_folder(data: Path, tmp_path: Path) -> None:
    writer = vault.Folder(tmp_path / "evil")
    kept = writer.put_bytes("../out.txt", b"out")
    writer.finish([kept], dict(format=1, name="backup-1", runs=0, files=1, bytes=3, left_out=[], made_at=""))
    with pytest.raises(InputError, match="outside its folder"):
        restoring.restore(tmp_path / "evil", tmp_path / "back", quiet)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("name", ["backups", "whole.zip"])
def test_half_a_backup_is_none(data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills at each point in turn: what was whole stays whole, what is half is never taken for one."""
    if name == "backups":
        archive.backup(tmp_path / name, quiet)
    plant.batch([{}, {}])
    copied, seen, limits = vault.copied, [0], [0]

    def full(source: Any, out: Any) -> tuple[int, str]:
        seen[0] += 1
        if seen[0] == limits[0]:
            out.write(b"h")
            raise OSError(errno.ENOSPC, "No space left on device")
        return copied(source, out)

    monkeypatch.setattr(vault, "copied", full)
    for limit in (1, 3):
        seen[0], limits[0] = 0, limit
        with pytest.raises(ResourceError, match="is full.*no backup"):
            archive.backup(tmp_path / name, quiet)
        if name == "backups":
            assert len(vault.heads(tmp_path / name)) == 1 and not list((tmp_path / name / "files").glob(".*"))
        else:
            assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*.part"))
    limits[0] = -1
    archive.backup(tmp_path / name, quiet)
    restoring.restore(tmp_path / name, tmp_path / "back", quiet)
    assert tree(tmp_path / "back") == tree(data)


def test_a_backup_that_does_not_fit_is_not_begun(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive.backup(tmp_path / "to", quiet)
    monkeypatch.setattr(vault, "free", lambda at: 10)
    with pytest.raises(ResourceError, match="Nothing was copied"):
        archive.backup(tmp_path / "other", quiet)
    with pytest.raises(ResourceError, match="Nothing was restored"):
        restoring.restore(tmp_path / "to", tmp_path / "back", quiet)
    assert not (tmp_path / "back").exists() and archive.backup(tmp_path / "to", quiet)["files"] == made["files"], "nothing is new"


def test_a_zip_can_be_opened_by_anything(data: Path, tmp_path: Path) -> None:
    archive.backup(tmp_path / "whole.zip", quiet)
    with zipfile.ZipFile(tmp_path / "whole.zip") as z:
        assert z.testzip() is None and z.read("alerts.toml") == b"[line]\n" and json.loads(z.read("head.json"))["runs"] == 3
    assert (tmp_path / "whole.zip").stat().st_mode & 0o077 == 0, "hashes of passwords may be in it"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match=".zip"):
        archives.backup(Backup(), None, quiet)
    with pytest.raises(ConfigError, match="empty folder"):
        archives.restore(Restore(file="x"), None, quiet)


def test_both_commands(data: Path, tmp_path: Path) -> None:
    """As a person types them, the data folder gone in between."""
    (data / "inspection.duckdb").unlink()

    def call(*words: str) -> dict[str, Any]:
        done = subprocess.run([sys.executable, "-m", "backend", *words, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    made = call("backup", "--to", str(tmp_path / "to"))
    assert made["state"] == "completed" and made["result"]["runs"] >= 3
    data.rename(tmp_path / "lost")
    back = call("restore", str(tmp_path / "to"), "--into", str(tmp_path / "back"))["result"]
    assert back["runs"] == made["result"]["runs"] and back["parts"] > 0 and (tmp_path / "back" / "inspection.duckdb").exists()
    assert not data.exists(), "a restore does not need it"
