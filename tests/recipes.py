"""Small real recipes, added by the seam for recipes of one's own (`DIFFSPECT_RECIPES=tests.recipes`): `trial` in the light lane,
`trial-heavy` in the heavy one. What they do is chosen by `do`."""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Config, _f
from backend.errors import InputError
from backend.jobs import limits, recipes
from backend.records import inspection_ids

CHILD = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nimport time\nwhile True: time.sleep(0.1)"


@dataclass(frozen=True)
class Trial(Config):
    """A small run for tests."""

    do: str = _f("count", "What to do.")
    steps: int = _f(3, "How many steps.", low=0, high=10_000)
    pause: float = _f(0.0, "Seconds after each step.", low=0.0, high=60.0)
    name: str = _f("", "Name.")
    out_dir: str = _f("", "Folder for a mark.")


@dataclass(frozen=True)
class HeavyTrial(Trial):
    """A small run for tests, in the heavy lane."""


def run(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    return {"count": count, "write": write, "stuck": stuck, "allocate": allocate, "kernel": kernel, "raise": fail, "plain": plain,
            "leave": leave, "print": talk, "files": files, "grow": grow}[config.do](config, run_dir, report)


def count(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    for step in range(1, config.steps + 1):
        report(step=step, total=config.steps, message=f"Step {step}", loss=1 / step)
        time.sleep(config.pause)
    return {"steps": config.steps}


def write(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    """One part of ten inspections a step. The inspections that are there are its checkpoint: written last in each step."""
    began_with = len(rundir.parts(run_dir, "inspections"))
    ids = inspection_ids(run_dir.name, 10 * config.steps)
    for step in range(began_with, config.steps):
        rundir.write_part(run_dir, "detections", [dict(inspection_id=int(i), class_name="pit", confidence=0.9, x1=1, y1=1, x2=9, y2=9)
                                                  for i in ids[10 * step:10 * step + 10]], step + 1)
        rundir.write_part(run_dir, "inspections", [inspection(int(i)) for i in ids[10 * step:10 * step + 10]], step + 1)
        report(step=step + 1, total=config.steps, written=10.0)
        time.sleep(config.pause)
    return {"began_with": began_with, "inspected": 10 * config.steps}


def inspection(number: int) -> dict[str, Any]:
    at = datetime.now(UTC)
    return dict(inspection_id=number, plant="real", image_id=f"{number:064x}", file_name=f"{number}.png", unit_id="", line="L1",
                product="P", lot="", camera="", captured_at=at, captured_source="arrival", ingested_at=at, width=10, height=10,
                model_id="m", runtime="none", counted=True, not_counted_why="", kept=False, kept_share=1.0)


def stuck(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    """Never reports again, deaf to SIGTERM, with a child in its group."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    rundir.write_bytes(run_dir / "child", str(child.pid).encode())
    report(step=1, total=2)
    while True:
        time.sleep(0.1)


def leave(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    """Ends well, but leaves a child behind in a session of its own."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True)
    (run_dir / "child").write_text(str(child.pid))
    child.returncode = 0                                         # no complaint about it
    return {}


def allocate(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    return {"bytes": len(bytearray(8 << 30))}


def grow(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    """As a file may that is larger inside than it looks."""
    pieces: list[bytes] = []
    while len(pieces) < 400:                                     # 20 GB
        pieces.append(bytes(50 << 20))
    return {"pieces": len(pieces)}


def kernel(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")


def fail(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    raise InputError("The folder is empty.")


def plain(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    return {"never": {}["missing"]}


def talk(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    print("from python")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    for step in range(3):
        print(f"\rbar {step}", end="")
    print()
    return {}


def files(config: Trial, run_dir: Path, report: Any) -> dict[str, Any]:
    inbox = run_dir / "inbox"
    names = rundir.read_json(inbox / "inbox.json")
    return {entry["name"]: len((inbox / entry["file"]).read_bytes()) for entry in names}


recipes.add("trial", Trial, "tests.recipes:run")
recipes.add("trial-heavy", HeavyTrial, "tests.recipes:run", heavy=True)
recipes.add("trial-limited", type("LimitedTrial", (Trial,), {"__module__": __name__}), "tests.recipes:run")
limits.LIMITED.add("trial-limited")
limits.SILENCE_S["trial-limited"] = 4.0                     # a worker that starts says nothing either
recipes.add("trial-broken", type("BrokenTrial", (Trial,), {"__module__": __name__}), "tests.no_such_module:run")
