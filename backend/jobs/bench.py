"""The benchmarks that are commands. `bench inference` measures in processes of its own, beside the tests.

`bench anomaly`: one anomaly model for each category of MVTec AD, or of another set in its layout, all with the same settings.

A category is an ordinary import and an ordinary training, so the dashboard shows both. It is imported each time, since its files
may have changed; the same content is the same snapshot. So a stopped benchmark goes on where it was: a completed training of the
very settings, snapshot and program counts, and the table says that it was there; one that was stopped is taken up. Program: the
text of what makes a figure, since a version stays the same from one change to the next. It ends the model's name. Figures are those
of the deployed model, with the weights of the last step, on the category's own test images, which nothing was chosen on. Knows
nothing of how they come about.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend import __version__, rundir
from backend.config import Config, Import, TrainAnomaly
from backend.errors import DiffspectError, InputError
from backend.jobs import executor, recipes, worker

FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
SOURCE = "arXiv 2604.19240"
PUBLISHED: dict[str, Any] = {"image_auroc": 98.4, "pixel_auroc": 98.3, "pixel_ap": None, "aupro": None}     # its abstract: means
Figures = dict[str, Any]             # percent or None; `reused` where the training was there already
BACKEND = Path(__file__).resolve().parents[1]
# What a figure of an anomaly model comes from; a test holds the list against what the recipe imports.
SOURCES = ("anomaly/*.py", "diffusion/*.py", "synthesis/blend.py", "synthesis/masks.py", "synthesis/perturb.py", "synthesis/pool.py",
           "synthesis/sources.py", "teacher/extractors.py", "teacher/quick.py", "teacher/source.py", "data/normals.py",
           "evaluation/anomaly.py", "inspection/anomaly_engine.py")


def inference(options: dict[str, Any], as_json: bool) -> int:
    """How fast inspection is, beside what else there is. Returns the exit code."""
    words = ["--imgsz", *map(str, options["imgsz"]), "--rounds", str(options["rounds"])]
    words += ["--images", str(options["images"])] if options["images"] else []
    words += ["--model", str(rundir.find_model(options["model"], "detector"))] if options["model"] else []
    words += ["--json"] if as_json else []
    command = [sys.executable, "-m", "tests.benchmarks.inference", *words]
    return subprocess.run(command, cwd=executor.ROOT, env=executor.environment()).returncode


def categories(folder: Path) -> list[Path]:
    """The category folders in a folder, or the folder itself where it is one. Raises InputError."""
    found = [p for p in [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
             if all((p / part).is_dir() for part in ("train/good", "test", "ground_truth"))]
    if not found:
        raise InputError(f"{folder} holds no category in the layout of MVTec AD: a folder with train/good, test and ground_truth.")
    return found


def anomaly(category: Path, config: TrainAnomaly, echo: worker.Echo) -> Figures:
    """Import, train, and the figures on the test images in percent, `reused` where it was trained before. `config` without dataset and
    name."""
    name = f"{category.parent.name}-{category.name}"
    imported = ended(worker.foreground(Import(path=str(category), name=name, layout="mvtec"), "real", echo))
    snapshot_id = rundir.read_json(imported / "snapshot.json")["snapshot_id"]
    wanted = replace(config, dataset=snapshot_id, name=f"{name}-{config.seed}-{code()[:8]}")
    before = found(wanted)
    reused = before is not None and rundir.read_json(before / "state.json")["state"] == "completed"
    told = rundir.read_json(made(wanted, echo) / "model" / "model.json")["metrics"]["test"]
    return {key: None if told.get(key) is None else round(100 * told[key], 2) for key in FIGURES} | dict(reused=reused)


def code(sources: Sequence[str] = SOURCES) -> str:
    """16 digits that stand for the program behind a figure, or for some of it."""
    files = sorted(path for pattern in sources for path in BACKEND.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def found(config: Config) -> Path | None:
    """The newest run of these settings and this version, in whatever state."""
    wanted = (config.to_json(), __version__)
    jobs = ((p, rundir.read_json(p / "job.json")) for p in rundir.find(recipes.name_of(config)))
    return next((p for p, job in jobs if (job["config"], job["code_version"]) == wanted), None)


def made(config: Config, echo: worker.Echo) -> Path:
    """The completed run of these settings and this program: there already, taken up where it was, or made. Raises DiffspectError."""
    run_dir = found(config)
    if run_dir is None:
        run_dir = worker.foreground(config, "real", echo)
    elif rundir.read_json(run_dir / "state.json")["state"] != "completed":
        run_dir = worker.again(run_dir.name, echo)
    return ended(run_dir)


def ended(run_dir: Path) -> Path:
    """The run, where it is completed. Raises DiffspectError with its own sentence where it failed, KeyboardInterrupt where canceled."""
    state: dict[str, Any] = rundir.read_json(run_dir / "state.json")
    if state["state"] == "canceled":
        raise KeyboardInterrupt
    if state["state"] != "completed":
        name = rundir.read_json(run_dir / "job.json")["config"].get("name", "")
        raise DiffspectError(f"{name}: {state['message']} The log is {run_dir / 'log.txt'}")
    return run_dir


def mean(rows: dict[str, Figures]) -> Figures:
    """Over the categories that have a figure."""
    told = {key: [v for figures in rows.values() if (v := figures[key]) is not None] for key in FIGURES}
    return {key: round(sum(values) / len(values), 2) if values else None for key, values in told.items()}


def line(name: str, figures: Figures) -> str:
    """A row of the table, as wide as its titles."""
    cells = ("" if figures[key] is None else f"{figures[key]:.1f}" for key in FIGURES)
    return f"{name[:27]:<28}" + "".join(f"{cell:>14}" for cell in cells) + ("  reused" if figures.get("reused") else "")


def titles() -> str:
    return " " * 28 + "".join(f"{title:>14}" for title in FIGURES.values())
