"""The audit log: what has an entry, and that every way of tampering shows: edits, removals, insertions, a tail that is cut off."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import jobs, rundir
from backend.__main__ import main
from backend.errors import ResourceError
from backend.jobs import accounts, audit, events, house, needs, people, results
from backend.jobs.needs import Person

ANA = Person("Ana", "admin")


@pytest.fixture
def log(data_folder: Path) -> Iterator[list[Path]]:
    """Six entries, the oldest first."""
    with needs.acting_as(ANA):
        for n in range(6):
            audit.write("export", f"batch {n}", dict(n=n))
        yield list(rundir.find(audit.RECIPE))[::-1]
    house.close()


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    job = rundir.read_json(path / "job.json")
    change(job["config"])
    (path / "job.json").write_text(json.dumps(job))


def rehashed(entry: dict[str, Any]) -> None:
    entry |= dict(on="batch 9", hash=audit.hash_of(entry | dict(on="batch 9")))


def problems() -> str:
    found = audit.verify()
    assert not found.holds
    return " ".join(found.problems)


def test_a_log_that_nobody_touched_holds(log: list[Path]) -> None:
    found = audit.verify()
    assert found.holds and found.entries == 6 and found.last.startswith("6:") and not found.notes
    assert audit.verify(found.last).holds and not audit.verify("6:" + "0" * 64).holds and not audit.verify("x").holds
    assert [e["seq"] for e in audit.entries()] == [6, 5, 4, 3, 2, 1]


def test_an_edit_shows_at_its_place(log: list[Path]) -> None:
    edit(log[2], lambda e: e.update(on="something else"))
    assert f"Entry 3 ({log[2].name}): it was changed after it was written" in problems()


def test_an_edit_with_its_own_hash_breaks_the_next_link(log: list[Path]) -> None:
    edit(log[2], rehashed)
    assert problems() == f"Entry 4 ({log[3].name}): it does not follow from the entry before it; one of the two was changed."


def test_a_removal_shows(log: list[Path]) -> None:
    shutil.rmtree(log[2])
    shutil.rmtree(log[3])
    assert problems() == "Between entry 2 and entry 5 2 are missing."


def test_an_insertion_shows(log: list[Path]) -> None:
    copy = log[2].with_name(log[2].name[:-6] + "abcdef")
    shutil.copytree(log[2], copy)
    assert "its number stands twice" in problems() and "it stands under another name" in problems()


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_tail_that_is_cut_off_shows_and_stays_shown(log: list[Path], cut: int) -> None:
    for path in log[6 - cut:]:
        shutil.rmtree(path)
    assert problems() == f"After entry {6 - cut} {cut} are missing: the log once had 6."
    audit.write("export", "afterwards")
    assert problems() == f"Between entry {6 - cut} and entry 7 {cut} are missing."


def test_a_tail_cut_off_with_its_witness_shows_by_a_kept_hash_and_by_decisions(log: list[Path]) -> None:
    kept = audit.verify().last
    promoted = jobs.record("promote", dict(model_id="m1", name="m1"))
    assert audit.verify(kept).holds
    for path in list(rundir.find(audit.RECIPE))[:2]:
        shutil.rmtree(path)
    (accounts.root() / "audit.json").unlink()
    said = " ".join(audit.verify(kept).problems)
    assert "audit.json is gone" in said and "Entry 6 is another one than you kept, or is missing" in said
    assert f"The decision {promoted} has no entry" in said


def test_an_unreadable_entry_is_named(log: list[Path]) -> None:
    (log[4] / "job.json").write_text("{")
    assert f"{log[4].name}: cannot be read" in problems() and len(audit.entries()) == 5


def test_a_writer_who_was_killed_before_the_witness_leaves_a_sound_log(log: list[Path]) -> None:
    witness = (accounts.root() / "audit.json").read_bytes()
    audit.write("export", "and killed")
    (accounts.root() / "audit.json").write_bytes(witness)
    assert audit.verify().holds
    audit.write("export", "the next")
    assert audit.verify().holds and audit.verify().entries == 8


def test_many_at_once_make_one_chain(log: list[Path]) -> None:
    threads = [threading.Thread(target=lambda n=n: [audit.write("export", f"{n}.{i}", who=ANA) for i in range(4)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = audit.verify()
    assert found.holds and found.entries == 22


# ---- decisions

def test_a_decision_that_matters_has_an_entry_that_knows_its_bytes(log: list[Path]) -> None:
    made = jobs.record("policy", dict(class_name="pits", threshold=0.5, product="", action="reject"))
    jobs.record("note", dict(line="L1", text="roll", at="2026-11-03T12:00:00+00:00"))
    undone = jobs.undo(made)
    said = [(e["what"], e["on"], e.get("run", "")) for e in audit.entries()[:2]]
    assert said == [("undo", made, undone), ("policy", "pits", made)] and audit.verify().holds
    edit(rundir.run_path(made), lambda config: config.update(threshold=0.9))
    assert f"the decision that it speaks of, {made}, was changed since" in problems()


def test_a_decision_past_the_log_shows(log: list[Path]) -> None:
    made = events.record("promote", dict(model_id="m1"), by="Eve")
    events.record("calendar", dict(time_zone="UTC"), by="installation")
    assert problems() == f"The decision {made} has no entry: it was made past the log, or its entry is missing."


def test_what_was_removed_since_is_a_note_and_no_break(log: list[Path]) -> None:
    made = jobs.record("exclude", dict(run_id="x", inspection_ids=[]))
    shutil.rmtree(rundir.run_path(made))
    found = audit.verify()
    assert found.holds and made in found.notes[0]


def test_where_no_entry_can_be_written_nothing_is_decided(data_folder: Path) -> None:
    accounts.root().parent.mkdir(exist_ok=True)
    accounts.root().write_text("in the way")
    before = list(rundir.find())
    with pytest.raises(ResourceError, match="cannot be written"):
        jobs.record("promote", dict(model_id="m1", name="m1"))
    with pytest.raises(ResourceError):
        jobs.remove_demo()
    assert list(rundir.find()) == before and not [p for p in rundir.runs_root().iterdir() if p.name.startswith(".2")]
    house.close()


def test_entries_are_no_rows_of_the_store(log: list[Path]) -> None:
    house.opened().ingest()
    assert results.damaged().empty and [r.run_id for r in jobs.recent()] == []
    assert results.changes("real").empty


def test_filters_and_a_csv_without_formulas(log: list[Path]) -> None:
    jobs.exported("=HYPERLINK(1)")
    assert [e["on"] for e in people.entries("export", "ANA")][0] == "=HYPERLINK(1)" and people.entries("promote") == []
    csv = people.csv(people.entries()).decode("utf-8-sig")
    assert "'=HYPERLINK(1)" in csv and ",=HYPERLINK" not in csv and csv.splitlines()[0].startswith("Number,At (UTC),Who")
    assert audit.entries()[0]["on"] == "7 entries of the audit log"


def test_the_command_line_says_whether_it_holds(log: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["holds"] and said["entries"] == 6
    assert main(["audit", "verify", "--expect", said["last"]]) == 0
    shutil.rmtree(log[3])
    assert main(["audit", "verify"]) == 1 and "Between entry 3 and entry 5 1 are missing" in capsys.readouterr().out
