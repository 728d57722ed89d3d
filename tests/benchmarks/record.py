"""What every benchmark writes: results/<name>.json in the form that design and README's tables read."""

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
SHARED = ROOT.parent / "shared"
NEU = SHARED / "data" / "NEU-DET"


def machine() -> str:
    """Processor, cores and memory, in words; no name or path of the machine."""
    names = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    model = next(names, f":{platform.machine()}").split(":")[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {graphics()}"


def graphics() -> str:
    """'NVIDIA H200, 2 of them', or 'no GPU'."""
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    names = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return names[0] + (f", {len(names)} of them" if len(names) > 1 else "") if names else "no GPU"


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def write(name: str, command: str, arms: dict[str, dict[str, list[float]]], seeds: list[int], notes: str,
          packages: tuple[str, ...], comparisons: list[dict[str, Any]] | None = None, where: str = "",
          made_with: dict[str, str] | None = None) -> Path:
    """Write the figures of one benchmark. `arms`: arm -> metric -> one value per seed (or per repeat).

    `where` and `made_with`: machine and versions, if not these here.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(dict(name=name, command=command, commit=commit, machine=where or machine(),
                                    versions=made_with or versions(packages), seeds=seeds, arms=arms, comparisons=comparisons or [],
                                    notes=notes), indent=1) + "\n")
    return path


def join(name: str, part: str, command: str, arms: dict[str, dict[str, list[float]]], seeds: list[int], notes: str,
         packages: tuple[str, ...], comparisons: list[dict[str, Any]] | None = None) -> Path:
    """Write one part of a benchmark that several programs measure. What other parts have written stays as it is.

    In the file, arms are called '<part>: <arm>', in comparisons too, and `command` and `notes` have a line for each part, which begins so
    too.
    """
    path = RESULTS / f"{name}.json"
    there = json.loads(path.read_text()) if path.exists() else dict(arms={}, command="", notes="", seeds=[], versions={})

    def lines(key: str, own: str) -> str:
        others = [line for line in there[key].splitlines() if not line.startswith(f"{part}: ")]
        return "\n".join(sorted([*others, f"{part}: {own}"]))

    others = {arm: told for arm, told in there["arms"].items() if not arm.startswith(f"{part}: ")}
    compared = [c for c in there.get("comparisons", []) if not c["a"].startswith(f"{part}: ")]
    compared += [c | {side: f"{part}: {c[side]}" for side in ("a", "b")} for c in comparisons or []]
    return write(name, lines("command", command), others | {f"{part}: {arm}": told for arm, told in arms.items()},
                 sorted({*there["seeds"], *seeds}), lines("notes", notes), packages, compared,
                 made_with=there["versions"] | versions(packages))


def product(data: Path, *words: str, recipes: str = "") -> dict[str, Any]:
    """Run one command of the product on a data folder of its own and return its JSON. Raises CalledProcessError.

    `recipes`: module with recipes of the benchmark's own.
    """
    chosen = {"DIFFSPECT_DATA": str(data), "DIFFSPECT_RECIPES": recipes}
    done = subprocess.run([sys.executable, "-m", "backend", *words, "--json"],
                          cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **chosen})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def scored(predictions: Path, truth: Path, split: Path) -> dict[str, Any]:
    """The published scorer's figures, in a process of its own."""
    scorer = SHARED / "score" / "score_detection.py"
    done = subprocess.run([sys.executable, str(scorer), str(predictions), str(truth), "--list", str(split)],
                          check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))
