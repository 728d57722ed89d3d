"""What tests share: a data folder of their own, and an end to whatever they left running in it."""

import copy
import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from backend.store.database import Database


def pytest_collection_finish() -> None:
    """What tests have made again and again is made once a process.

    AppTest looks through every installed package for components, anew for each page: 0.3 s of a core, and more than a page takes.
    OpenVINO compiles the same small detector for every data folder that it lies in: 0.5 s.
    """
    if "streamlit.testing.v1" in sys.modules:
        scanner = importlib.import_module("streamlit.components.v2.manifest_scanner")
        scanner.scan_component_manifests = functools.cache(scanner.scan_component_manifests)
    if "backend.inspection.runtimes" in sys.modules:
        runtimes = importlib.import_module("backend.inspection.runtimes")
        runtimes.OpenVino = functools.partial(_opened, functools.lru_cache(8)(runtimes.OpenVino))


def _opened(compiled: Callable[..., Any], *given: Any) -> Any:
    """A network that was compiled for the same bytes before, with requests of its own."""
    network = copy.copy(compiled(*given))
    network.notes = []
    network._requests = [r.get_compiled_model().create_infer_request() for r in network._requests]
    network._inputs = {id(r): r.get_input_tensor(0).data for r in network._requests}
    return network


@pytest.fixture(scope="session", autouse=True)
def _not_the_real_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test ever touches `data/`, whatever it forgets."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("data")
        patch.setenv("DIFFSPECT_DATA", str(root))
        yield
        settle_down(root)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder of a plant without the demo. No supervisor starts by itself: see `supervised`."""
    from backend.jobs import events

    root = (tmp_path / "data").resolve()
    monkeypatch.setenv("DIFFSPECT_DATA", str(root))
    monkeypatch.setenv("DIFFSPECT_SUPERVISOR", "off")
    monkeypatch.setenv("DIFFSPECT_WARM", "off")
    monkeypatch.setenv("DIFFSPECT_MESSENGER", "off")
    events.set_calendar()
    if "streamlit" in sys.modules:                               # what pages keep is asked for by revision, and those are small everywhere
        sys.modules["streamlit"].cache_data.clear()
    yield root
    settle_down(root)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Database]":
    """An empty store of an empty data folder; the program brings no model."""
    from backend.store import scan
    from backend.store.database import Database

    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "no-bundle")
    db = Database()
    yield db
    db.close()


@pytest.fixture
def supervised(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose supervisor starts with the first call of `backend.jobs`; it has the small recipes of tests.recipes."""
    monkeypatch.setenv("DIFFSPECT_SUPERVISOR", "on")
    monkeypatch.setenv("DIFFSPECT_RECIPES", "tests.recipes")
    monkeypatch.setenv("DIFFSPECT_CANCEL_GRACE", "0.5")
    monkeypatch.setenv("DIFFSPECT_KILL_GRACE", "0.5")
    import tests.recipes  # noqa: F401

    return data_folder


def settle_down(root: Path) -> None:
    """Close what this process holds of a data folder; end its supervisor and workers, and wait until they are gone."""
    if "backend.jobs.house" in sys.modules:
        sys.modules["backend.jobs.house"].close()
    until = time.monotonic() + 20
    for pid in processes(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while (left := list(processes(root))) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left, f"still running: {left}"


def processes(root: Path) -> Iterator[int]:
    """Other processes whose environment names this data folder: the supervisor, its workers, and all that they forked."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE \
                    and process.environ().get("DIFFSPECT_DATA") == str(root):
                yield process.pid
