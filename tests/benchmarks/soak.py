"""A folder watch for half an hour at the pace of a line: does it keep up, and do its memory and open files stay flat?

    python -m tests.benchmarks.soak [--minutes 30] [--rate 50] [--keep S] [--folder DIR]

A camera of its own process writes NEU-DET's test files where they are (else drawn ones) into a folder and leaves them there, or removes
each after `--keep` seconds. Every 10 seconds resident memory, open files and threads of the watch, and how many pictures are written but
not inspected. The slope is that of a straight line through the medians of each minute after the first fifth; "flat" is a slope whose
95 % interval ends below 0.1 MB (or 0.1 open files) a minute. Each picture must have one row at the end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from scipy import stats

from backend.device import cores
from tests.benchmarks.record import NEU, ROOT, write

EVERY_S, FLAT = 10.0, 0.1
Sample = dict[str, float]


def started(folder: Path, data: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "backend", "watch", str(folder), "--line", "L1"]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "DIFFSPECT_DATA": str(data)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def inspected(data: Path) -> int:
    """Over all runs of the watch: it goes on in another when one is full."""
    return sum(json.loads(p.read_text())["inspected"] for p in data.glob("runs/*/watching.json"))


def sampled(watch: "psutil.Process", folder: Path, data: Path, seconds: float) -> list[Sample]:
    began, samples = time.monotonic(), list[Sample]()
    while (at := time.monotonic() - began) < seconds:
        with watch.oneshot():
            samples.append(dict(minutes=at / 60, rss_mb=watch.memory_info().rss / 1e6, handles=watch.num_fds(), threads=watch.num_threads(),
                                core_s=sum(watch.cpu_times()[:2]), inspected=inspected(data), written=written(folder)))
        time.sleep(max(0.0, began + EVERY_S * len(samples) - time.monotonic()))
    return samples


def written(folder: Path) -> int:
    """The camera numbers its files: the highest number, and one."""
    return max((int(e.name[:7]) + 1 for e in os.scandir(folder)), default=0)


def slope(samples: list[Sample], key: str) -> dict[str, float]:
    """Units a minute with a 95 % interval, of the medians of minutes (of samples, where there are few), without the first fifth."""
    kept = [s for s in samples if s["minutes"] >= samples[-1]["minutes"] / 5]
    bins: dict[int, list[float]] = {}
    for s in kept:
        bins.setdefault(int(s["minutes"]), []).append(s[key])
    points = [(m, median(v)) for m, v in bins.items()] if len(bins) >= 5 else [(s["minutes"], s[key]) for s in kept]
    x, y = np.array(points).T
    if np.ptp(y) == 0:
        return dict(slope=0.0, low=0.0, high=0.0)
    line = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
    return dict(slope=round(float(line.slope), 4), low=round(float(line.slope) - half, 4), high=round(float(line.slope) + half, 4))


def once(data: Path) -> tuple[int, int]:
    """Rows, and different pictures among them."""
    os.environ["DIFFSPECT_DATA"] = str(data)
    from backend import rundir

    ids = [i for run in rundir.find("watch") for i in rundir.rows(run, "inspections")["image_id"].to_pylist()]
    return len(ids), len(set(ids))


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--minutes", type=float, default=30.0)
    ap.add_argument("--rate", type=float, default=50.0)
    ap.add_argument("--keep", type=float, help="the camera removes each picture after so many seconds")
    ap.add_argument("--folder", type=Path, help="where to work (about 3 GB for half an hour); default: a temporary folder")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir=a.folder) as root:
        folder, data = Path(root) / "camera", Path(root) / "data"
        folder.mkdir()
        process = started(folder, data)
        camera = None
        try:
            while not list(data.glob("runs/*/watching.json")):       # its model is loaded
                assert process.poll() is None, "the watch ended early"
                time.sleep(0.5)
            command = [sys.executable, "-m", "tests.benchmarks.camera", str(folder), "--rate", str(a.rate)]
            command += ["--seconds", str(60 * a.minutes), *(["--source", str(NEU / "IMAGES")] if NEU.exists() else [])]
            camera = subprocess.Popen(command + (["--keep", str(a.keep)] if a.keep else []), cwd=ROOT)
            samples = sampled(psutil.Process(process.pid), folder, data, 60 * a.minutes)
            camera.wait(60)
            asked = round(60 * a.minutes * a.rate)
            until = time.monotonic() + 60
            while inspected(data) < asked and time.monotonic() < until:
                time.sleep(0.5)
        finally:
            for other in (camera, process):
                if other is not None and other.poll() is None:
                    other.send_signal(signal.SIGTERM)
                    other.wait(30)
        tell(a, samples, *once(data), asked)


def tell(a: argparse.Namespace, samples: list[Sample], rows: int, different: int, asked: int) -> None:
    memory, handles = slope(samples, "rss_mb"), slope(samples, "handles")
    late = [s["written"] - s["inspected"] for s in samples[1:]]
    verdict = "flat" if memory["high"] < FLAT and handles["high"] < FLAT else "not flat"
    pace = samples[-1]["inspected"] / (60 * samples[-1]["minutes"]) if samples[-1]["minutes"] else 0.0
    core = samples[-1]["core_s"] / max(60 * samples[-1]["minutes"], 1e-9)
    arm: dict[str, list[float]] = {
        "images/s": [round(pace, 2)], "late, images, median": [median(late)], "late, images, most": [max(late)],
        "cores busy": [round(core, 2)], "RSS MB": [round(s["rss_mb"], 1) for s in samples], "open files": [s["handles"] for s in samples],
        "MB a minute": [memory[k] for k in ("slope", "low", "high")], "open files a minute": [handles[k] for k in ("slope", "low", "high")]}
    kept = f"each removed after {a.keep:g} s" if a.keep else "all left in the folder"
    notes = (f"{a.rate:g} images/s for {a.minutes:g} minutes by a writer of its own, {kept}; {cores()} cores. Memory and open files: "
             f"{verdict} (95 % interval of the slope below {FLAT:g} a minute). {rows:,} rows of {different:,} pictures, {asked:,} written.")
    command = f"python -m tests.benchmarks.soak --minutes {a.minutes:g} --rate {a.rate:g}" + (f" --keep {a.keep:g}" if a.keep else "")
    name = "soak_removed" if a.keep else "soak"
    path = write(name, command, {"folder watch": arm}, [], notes, ("openvino", "numpy", "pyarrow", "pillow"))
    print(json.dumps(dict(verdict=verdict, memory=memory, handles=handles, images_per_s=pace, late_most=max(late), rows=rows,
                          different=different, written=asked, path=str(path))))


if __name__ == "__main__":
    main()
