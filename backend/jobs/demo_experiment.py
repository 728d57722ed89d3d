"""The recipe `demo-experiment`: makes the demo plant's experiment anew, by the very recipes that anybody's is made by, on drawn plates.

    draw-plates → synthesize (defects pasted into good plates) → experiment: combine, trainings, compare

What stopped is taken up where it was. What pages read of its runs is written to `out`, of plant `demo`; weights and models are not, and
the dataset's pictures are drawn when asked for. The recipe `demo` lays these runs out. Knows nothing of training.
"""

import shutil
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import DemoExperiment, DrawPlates, Experiment, Synthesize
from backend.jobs import bench, plans

NAME, PLATES, PASTED = "Demo: pasted defects", "Demo plates", "Pasted plates"
GOOD = 0.75                              # of the train images: defects are rare, and good plates easily had
BATCH = 4                                # many small steps for so few images: 60 in each pass, where batches of 16 are 15
FILES = ("job.json", "state.json", "progress.json", "result.json", "metrics.jsonl", "plan.json", "snapshot.json", "manifest.json")
FOLDERS = ("parts", "scored", "comparison")
WITHOUT = ("models", "model_thresholds", "snapshots")      # neither models to promote nor a dataset to train on: their files are not there


def run(config: DemoExperiment, run_dir: Path, report: Any) -> dict[str, Any]:
    plates = DrawPlates(name=PLATES, train=config.images, val=config.val, test=config.test, good=GOOD, classes=config.classes,
                        seed=config.seed)
    pasted = Synthesize(dataset=PLATES, name=PASTED, method="paste", count=config.synthetic, seed=config.seed)
    asked = Experiment(dataset=PLATES, name=NAME, arms="real, both", sets=PASTED, which="all", seeds=config.seeds, epochs=config.epochs,
                       imgsz=config.imgsz, shown=config.shown, batch=BATCH, optimizer="MuSGD")
    for step, made in enumerate((plates, pasted, asked)):
        last = bench.made(made, lambda progress: report(step=step, total=3, message=progress["message"]))      # noqa: B023
    result: dict[str, Any] = rundir.read_json(last / "result.json")
    if config.out:
        result |= dict(bytes=_write(last, Path(config.out)))
    return result


def _write(experiment: Path, out: Path) -> int:
    """The runs of the experiment, each a folder; returns how large they are together."""
    shutil.rmtree(out, ignore_errors=True)
    for path in [*plans.there(experiment), experiment]:
        _copy(path, out / path.name)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def _copy(run: Path, to: Path) -> None:
    to.mkdir(parents=True)
    for name in FILES:
        if (run / name).exists():
            shutil.copyfile(run / name, to / name)
    for name in FOLDERS:
        if (run / name).exists():
            shutil.copytree(run / name, to / name)
    for table in WITHOUT:
        for part in rundir.parts(to, table):
            part.unlink()
    rundir.write_json(to / "job.json", rundir.read_json(to / "job.json") | dict(plant="demo", by="Demo"))
