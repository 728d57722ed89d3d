"""Workers that open what came from outside: they may take so much memory and be silent so long, and then a person is told."""

import resource
import time
from pathlib import Path

import pytest

from backend import jobs, rundir
from backend.config import RECIPES
from backend.jobs import limits, runs
from tests.test_jobs import gone, wait_for


def ended(run_id: str, seconds: float = 60) -> jobs.RunStatus:
    until = time.monotonic() + seconds
    while (now := runs.status(run_id)).is_open and time.monotonic() < until:
        time.sleep(0.05)
    return now


def trial(do: str) -> jobs.RunStatus:
    return ended(jobs.submit(RECIPES["trial-limited"](do=do)))                # type: ignore[call-arg]


def test_a_worker_that_grows_is_refused_more_and_says_so(supervised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_WORKER_GB", "0.75")
    status = trial("grow")
    assert status.state == "failed" and status.message == limits.LARGE.format(0.75)
    assert trial("count").state == "completed", "what takes no more is carried out"


def test_a_worker_that_is_silent_is_ended_with_all_it_forked_and_the_next_goes_on(supervised: Path) -> None:
    status = trial("stuck")
    assert status.state == "failed" and status.message.startswith("It reported nothing for 0.0667 minutes, so it was ended: a file or the ")
    child = int((rundir.run_path(status.run_id) / "child").read_text())
    wait_for(lambda: gone(child))                                # it was told to end before the state was written
    assert trial("count").state == "completed"


def test_silence_is_counted_from_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: clock[0])
    heard, other = limits.Silence("inspect"), limits.Silence("train-detector")
    (tmp_path / "state.json").write_text("{}")
    said = []
    for at in (0, 800, 1600, 2600):
        clock[0] = 100.0 + at
        if at in (800, 1600):
            (tmp_path / "progress.json").unlink(missing_ok=True)
            (tmp_path / "progress.json").write_text(str(at))
        said.append((heard.too_long(tmp_path), other.too_long(tmp_path)))
    assert said == [(False, False)] * 3 + [(True, False)]


def test_only_what_opens_files_from_outside_is_held_to_a_limit() -> None:
    """In a process of its own: a limit stays."""
    import subprocess
    import sys

    script = ("import resource; from backend.jobs import limits; limits.DRIVER = limits.Path('/none')\n"
              "for name in ('train-detector', 'import'):\n    limits.lay_down(name)\n"
              "    print(resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_CORE)[0], limits.reached()[:27])\n"
              "limits.DRIVER = limits.Path('/proc/self/stat')\nprint(open('/proc/self/oom_score_adj').read())")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert done[0].split() == ["-1", "0"] and "0 It took all of the" in done[1] and done[2] == "300"
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


def test_a_word_that_is_no_number_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("", "lots", "0"):
        monkeypatch.setenv("DIFFSPECT_WORKER_GB", said)
        assert limits.gigabytes() == 6.0 + limits.cores()
