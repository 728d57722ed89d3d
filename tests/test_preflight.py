"""Preflight: what is wrong with a folder or a machine is said, with what to do; a data folder on a network share starts nothing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend import __main__ as command
from backend import rundir
from backend.errors import StoreError
from backend.jobs import house, machine, preflight
from backend.store import archive, mounts

ROOT = Path(__file__).resolve().parents[1]
TABLE = """sysfs /sys sysfs rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
server:/export /srv nfs4 rw,vers=4.2 0 0
/dev/sdb1 /srv/local xfs rw 0 0
//nas/share /mnt/the\\040share cifs rw 0 0
me@host:/home /home/me/remote fuse.sshfs rw 0 0
portal /run/user/1000/doc fuse.portal rw 0 0
tmpfs /tmp/quick tmpfs rw 0 0
/dev/sda1 /twice ext4 rw 0 0
server:/twice /twice nfs rw 0 0
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of mounts of our own."""
    path = tmp_path / "mounts"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "TABLE", path)
    return path


@pytest.mark.parametrize(("path", "point", "kind", "share"), [
    ("/var/data", "/", "ext4", False), ("/srv", "/srv", "nfs4", True), ("/srv/plant/data", "/srv", "nfs4", True),
    ("/srv/local/data", "/srv/local", "xfs", False), ("/srvother", "/", "ext4", False),
    ("/mnt/the share/x", "/mnt/the share", "cifs", True), ("/home/me/remote/d", "/home/me/remote", "fuse.sshfs", True),
    ("/run/user/1000/doc/d", "/run/user/1000/doc", "fuse.portal", False), ("/tmp/quick", "/tmp/quick", "tmpfs", False),
    ("/twice/d", "/twice", "nfs", True)])
def test_the_longest_mount_that_leads_there(table: Path, path: str, point: str, kind: str, share: bool) -> None:
    assert mounts.of(Path(path)) == (point, kind) and mounts.is_share(kind) is share


def test_without_a_table_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "none")
    assert mounts.of(tmp_path) == ("", "")
    mounts.refuse_share(tmp_path)


def test_a_share_starts_nothing(table: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(TABLE + f"server:/data {data_folder.parent} nfs4 rw 0 0\n")
    with pytest.raises(StoreError, match="network share .nfs4, mounted at .*DIFFSPECT_DATA"):
        house.opened()
    for words in (["rebuild"], ["inspect", "--images", "x"], ["backup", "--to", "/x"], ["retention", "--pictures", "30"], ["worker"]):
        assert command.main([*words]) == 1, words
        assert "network share" in capsys.readouterr().err
    assert command.main(["preflight"]) == 1
    assert "network share" in capsys.readouterr().out and not (data_folder / "inspection.duckdb").exists()


def found(name: str) -> machine.Line:
    return next(line for line in preflight.lines() if line.name == name)


def test_every_check_says_something(data_folder: Path) -> None:
    lines = preflight.lines()
    assert {line.name for line in lines} >= {"Data folder", "Kind of disk", "Disk space", "Speed of disk", "Memory", "Processor", "GPU",
                                             "Clock", "Versions", "Worker", "Backup"}
    assert all(line.said and line.word in machine.WORDS.values() and (line.state == "good" or line.do) for line in lines)
    assert not list(data_folder.glob(".preflight*")), "nothing is left behind"


def test_a_folder_in_memory_or_half_restored(table: Path, data_folder: Path) -> None:
    table.write_text(TABLE + f"tmpfs {data_folder} tmpfs rw 0 0\n")
    assert (line := found("Kind of disk")).state == "bad" and "in memory" in line.said
    (data_folder / archive.MARK).write_text("{}")
    assert (line := found("Data folder")).state == "bad" and "only in part" in line.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_folder_that_cannot_be_written(data_folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(data_folder)], check=True)
    try:
        assert (line := found("Data folder")).state == "bad" and "Read-only" in line.said and line.do
        assert found("Speed of disk").said.startswith("This could not be checked"), "one that fails keeps none of the others away"
    finally:
        subprocess.run(["umount", str(data_folder)], check=True)


def test_the_clock(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("Clock").state == "good"
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_OFFSET", machine._OFFSET - 3600)
        assert "jumped by +3600 s" in found("Clock").said
    ahead = rundir.new_id("note", datetime.now(UTC) + timedelta(hours=2))
    rundir.create("note", {}, run_id=ahead)
    assert (line := found("Clock")).state == "bad" and "set back" in line.said


def test_other_versions_than_the_lock_s(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    assert "no requirements.lock" in found("Versions").said
    (tmp_path / "requirements.lock").write_text(
        "duckdb==0.0.1 \\\n    --hash=sha256:00\nno-such-package==1 \\\n    --hash=sha256:00\n"
        "neither==1 ; python_full_version < '3' \\\n    --hash=sha256:00\n")
    assert (line := found("Versions")).state == "look" and "2 packages differ" in line.said and "no-such-package is missing" in line.said


def test_the_last_backup(data_folder: Path) -> None:
    assert "No backup" in found("Backup").said
    run = rundir.create("backup", {"to": "/mnt/backups"})
    for days, state in ((0, "good"), (8, "look")):
        rundir.set_state(run, "completed", finished_at=(datetime.now(UTC) - timedelta(days=days)).isoformat())
        assert (line := found("Backup")).state == state and "/mnt/backups" in line.said


def test_the_command_and_the_page(data_folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "backend", "preflight", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == any(line["state"] == "bad" for line in lines) and len(lines) > 8
    page = AppTest.from_file(str(ROOT / "pages" / "system.py"), default_timeout=60).run()
    assert not page.exception and {line["name"] for line in lines} == {b.value.strip("*") for b in page.markdown if b.value.strip("*") in
                                                                      {line["name"] for line in lines}}
    page.text_input(key="backup_to").input(str(data_folder / "inside"))
    next(b for b in page.button if b.label == "Back up now").click().run()
    assert not page.exception
    page.checkbox(key="retain_logs").check()
    next(b for b in page.button if b.label == "See what would go").click().run()
    assert not page.exception and any("Nothing would go" in c.value for c in page.caption)
    house.close()
    [asked] = rundir.find("backup")
    assert rundir.read_json(asked / "job.json")["config"] == {"to": str(data_folder / "inside")} and next(rundir.find("audit"), None)
