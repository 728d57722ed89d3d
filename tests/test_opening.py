"""The program opens with the server, before anybody visits; where it cannot, the server starts all the same."""

import asyncio
import time
from pathlib import Path

import pytest

from backend import rundir
from backend.jobs import locks
from pages.components import opening


def served(seconds: float, until: Path) -> None:
    """A server's life, until there is such a file."""
    async def life() -> None:
        async with opening.opened(None):
            end = time.monotonic() + seconds
            while not until.exists() and time.monotonic() < end:
                await asyncio.sleep(0.02)

    asyncio.run(life())


def test_the_program_opens_before_anybody_visits(data_folder: Path) -> None:
    served(30, data_folder / "inspection.duckdb")
    assert (data_folder / "inspection.duckdb").exists() and locks.holder(data_folder / "app.lock") is not None


def test_a_folder_that_cannot_be_opened_stops_no_server(data_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rundir.write_json(rundir.runs_root() / "format.json", dict(format=99))
    served(1, data_folder / "never")
    assert "newer Diffspect has written" in caplog.text and not (data_folder / "inspection.duckdb").exists()
