"""Where the time of an inspection goes: core milliseconds a picture of each of its parts, each alone, and of all together.

    python -m tests.benchmarks.inference_profile [--imgsz 224 640] [--rounds 3] [--images N]

The same files and the same network for each part: reading (bytes, hash, decoding, fitting), the network on ready pictures, boxes out of
its answers, and the desk (pictures kept, rows to Parquet). What all together take beyond their sum is waiting for each other's memory and
for the one thread that Python lets run at a time.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.config import demo_assets
from tests.benchmarks.inference import AT_224, PACKAGES, files
from tests.benchmarks.record import write

GROUP = 128


def parts(model: Path, folder: Path, data: Path) -> dict[str, dict[str, float]]:
    """{part: its cost of this round}; 'all together' is the recipe itself."""
    os.environ["DIFFSPECT_DATA"] = str(data)
    from backend import rundir
    from backend.config import Inspect
    from backend.data import files as listing
    from backend.inspection import inspect, looking, reading
    from backend.inspection.capture import Clock, counter, plant_zone, unit_finder
    from backend.inspection.engine import in_batches, load
    from backend.inspection.grouplog import GroupLog
    from backend.inspection.keeping import Keeper

    engine, config, found = load(model), Inspect(model="demo", images=str(folder)), dict[str, dict[str, float]]()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        made = work()
        found[name] = dict(seconds=time.perf_counter() - began, core_s=time.process_time() - used)
        return made

    def read() -> list[Any]:
        with listing.listing(folder) as entries, reading.pictures(entries, engine) as items:
            return list(items)

    items = timed("reading", read)
    ready = [item.prepared for item in items]
    raw = timed("the network", lambda: [
        one for answer in engine.raw([p.pixels for p in some] for some in in_batches(ready, engine.batch)) for one in answer])
    boxes = timed("boxes", lambda: [engine._boxes(one, p, inspect.FLOOR) for one, p in zip(raw, ready, strict=True)])
    looked = [looking.Looked(item, b, engine.runtime) for item, b in zip(items, boxes, strict=True)]
    run = rundir.create("inspect", config.to_json(), state="running")
    clock, log = Clock(config, datetime.now(UTC), plant_zone()), GroupLog(run)
    desk = inspect.Desk(config, run.name, engine, None, clock, unit_finder(config), counter(config), Keeper())
    timed("keeping and rows", lambda: [desk.write(looked[k:k + GROUP], log) for k in range(0, len(looked), GROUP)])
    whole = rundir.create("inspect", config.to_json(), state="running")
    for path in (data / "images").rglob("*"):                                 # kept above: it is to be kept again
        if path.is_file():
            path.unlink()
    timed("all together", lambda: inspect.run(config, whole, lambda **told: None))
    return {name: {k: 1000 * v / len(items) for k, v in one.items()} for name, one in found.items()}


def bundled(model: Path, data: Path) -> None:
    """The network, where the recipe finds it by name."""
    os.environ["DIFFSPECT_DATA"] = str(data)
    from backend import rundir

    shutil.copytree(model, rundir.create("train-detector", {}, state="completed") / "model")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--imgsz", type=int, nargs="+", default=[224, 640])
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--images", type=int, help="pictures of a round, at each size")
    a = ap.parse_args()
    arms: dict[str, dict[str, list[float]]] = {}
    told, shown, runtime = list[str](), "", ""
    from tests.benchmarks.inference_models import forms, offline

    offline()
    for imgsz in a.imgsz:
        count = a.images or max(360, AT_224 * 224**2 // imgsz**2)
        with tempfile.TemporaryDirectory(prefix="profile-") as root:
            folder, data = Path(root) / "pictures", Path(root) / "data"
            model = forms((demo_assets() / "model").resolve(), imgsz, Path(root))["bundle"]
            shown = files(folder, count)
            bundled(model, data)
            for turn in range(a.rounds + 1):                                  # the first warms up
                one = parts(model, folder, data)
                for name, cost in one.items() if turn else ():
                    arm = arms.setdefault(name, {})
                    arm.setdefault(f"{imgsz} px, core ms", []).append(round(cost["core_s"], 2))
                    arm.setdefault(f"{imgsz} px, ms", []).append(round(cost["seconds"], 2))
                print(imgsz, turn, json.dumps({n: {k: round(v, 2) for k, v in c.items()} for n, c in one.items()}), flush=True)
            from backend.inspection.engine import load

            runtime = load(model).runtime
        told.append(f"{count:,} pictures at {imgsz} px")
    sizes = " ".join(map(str, a.imgsz))
    print(write("inference_profile", f"python -m tests.benchmarks.inference_profile --imgsz {sizes} --rounds {a.rounds}", arms, [],
                f"{shown}, {', '.join(told)}; YOLO11n, the demo model; {runtime}. A picture's time in core milliseconds, and by the clock, "
                "of each part alone and of all together, where they work at the same time.", PACKAGES))


if __name__ == "__main__":
    main()
