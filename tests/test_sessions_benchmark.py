"""The benchmark of many sessions: its table, and, where there is time, a small one on a real server, uploads included."""

from pathlib import Path

import pytest

from tests.benchmarks import sessions
from tests.benchmarks.sessions_tables import crowd


def test_the_table_tells_pages_errors_and_memory() -> None:
    arm = {"ms: overview": [100.0, 300.0, 200.0], "ms: trends": [900.0], "errors": [0], "sessions": [4], "uploads": [2],
           "upload s": [1.5, 2.5], "pages in Chromium": [3], "memory MB, minute by minute": [300.0, 310.0], "MB a minute": [0.5, -0.1, 1.1]}
    result = dict(command="c", seeds=[], machine="m", notes="n", arms={"dashboard": arm})
    lines = crowd(result).splitlines()
    assert lines[2] == "| all pages | 4 | 200 | 900 | 900 |" and lines[3] == "| overview | 3 | 200 | 300 | 300 |"
    assert lines[6].startswith("0 errors, 4 sessions, 2 uploads (median 1.5 s") and "+0.50 MB a minute (-0.10 to +1.10)" in lines[7]


def test_every_page_is_visited() -> None:
    """But for the one that there is only where people sign in."""
    root = Path(__file__).resolve().parents[1]
    assert {p.stem for p in (root / "pages").glob("*.py")} - {"users"} == {page for page, _ in sessions.PAGES}


@pytest.mark.slow
def test_a_small_crowd_meets_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seats and Chromium for half a minute, every third visit an upload."""
    if sessions.CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    monkeypatch.setattr(sessions, "UPLOADS", 3)
    monkeypatch.setattr(sessions, "THINK_S", (0.5, 1.5))
    told = sessions.measure(3, 0.5, tmp_path / "data")
    assert not told.errors and told.uploads and told.browsed and sum(map(len, told.reruns.values())) > 20 and len(told.memory) > 3
