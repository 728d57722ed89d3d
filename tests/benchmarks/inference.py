"""Inspection against `yolo predict` and against the bare runtime: pictures a second, from unread files to rows in Parquet.

    python -m backend bench inference --imgsz 224 640 --json
    python -m tests.benchmarks.inference --imgsz 224 640 [--model FOLDER] [--rounds 5] [--images N] [--out FOLDER] [--json]

Four contestants in turn, so that a slow minute is slow for all: this pipeline, `yolo predict` (PyTorch, every core, its best batch),
`yolo predict` on its own OpenVINO export, and OpenVINO alone on ready tensors. Medians of the rounds; each contestant has its own process
and a round before the first that counts. Pictures: NEU-DET's test files where they are, else drawn demo plates; each is there several
times under another hash, as the product refuses a file that it has seen. The network: the committed demo model, or that of a folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from backend.config import demo_assets
from backend.device import cores
from tests.benchmarks.camera import numbered
from tests.benchmarks.inference_contestants import DEVICE, FORM, KINDS
from tests.benchmarks.record import NEU, ROOT, write

ROUNDS, AT_224 = 5, 1440                 # rounds that count; pictures of one at 224 px: fewer of larger ones, 360 at least
VERSUS = ("raw", "yolo_torch", "yolo_openvino")
NAMES = {"pipeline": "this pipeline", "yolo_torch": "`yolo predict`, PyTorch", "yolo_openvino": "`yolo predict`, its OpenVINO export",
         "raw": "OpenVINO alone, ready tensors"}
PACKAGES = ("openvino", "ultralytics", "torch", "numpy", "opencv-python-headless", "pillow", "pyarrow")
Rounds = dict[str, list[dict[str, float]]]


class Contestant:
    """One process, ready; `go` is a round."""

    def __init__(self, kind: str, imgsz: int, model: Path, pictures: Path, scratch: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.inference_contestants", kind, str(imgsz), str(model), str(pictures), str(scratch)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(scratch.with_suffix(".log"), "wb"), text=True)
        self.how: str = self._answer()["how"]

    def go(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant died: {' '.join(map(str, self.process.args))}")     # type: ignore[arg-type]
        return dict(json.loads(line))

    def end(self) -> None:
        self.process.communicate(timeout=60)


def files(folder: Path, count: int) -> str:
    """So many pictures into a folder; what they are, in words."""
    folder.mkdir(parents=True)
    listed = NEU / "splits" / "test.txt"
    if listed.exists():
        sources = [(NEU / "IMAGES" / f"{stem}.jpg").read_bytes() for stem in listed.read_text().split()]
    else:
        from io import BytesIO

        from backend.data import demo

        sources = []
        for ident in islice(demo.training_set(90, 0), 90):
            out = BytesIO()
            demo.render(ident).image.save(out, "JPEG", quality=92)
            sources.append(out.getvalue())
    for k in range(count):
        (folder / f"{k:05d}.jpg").write_bytes(numbered(sources[k % len(sources)], k))
    return f"{'NEU-DET test files' if listed.exists() else 'drawn demo plates'} (JPEG, {min(count, len(sources))} different)"


def measured(bundle: Path, imgsz: int, rounds: int, count: int, folder: Path, kinds: list[str]) -> tuple[Rounds, dict[str, str], str]:
    """All rounds of each contestant at one size; how each ran; what it was shown."""
    from tests.benchmarks.inference_models import forms, offline

    offline()
    made, shown = forms(bundle, imgsz, folder), files(folder / f"pictures-{imgsz}", count)
    there: dict[str, Contestant] = {}
    found: Rounds = {kind: [] for kind in kinds}
    try:
        for kind in kinds:                                                   # one gets ready after the other
            there[kind] = Contestant(kind, imgsz, made[FORM[kind]], folder / f"pictures-{imgsz}", folder / f"{imgsz}-{kind}")
        for turn in range(rounds + 1):
            for kind, contestant in there.items():
                one = contestant.go()
                found[kind] += [one] if turn else []                         # the first warms up
                print(f"{imgsz} px, round {turn} of {rounds}, {kind}", file=sys.stderr, flush=True)
    finally:
        for contestant in there.values():
            contestant.end()
    return found, {kind: c.how for kind, c in there.items()}, shown


def row(imgsz: int, found: Rounds, how: dict[str, str]) -> dict[str, Any]:
    """The JSON row of one size: medians, and how many times the pipeline is as fast, round by round."""
    speed = {kind: [one["pictures"] / one["seconds"] for one in rounds] for kind, rounds in found.items()}
    told: dict[str, Any] = {"imgsz": imgsz} | {f"{kind}_ips": round(median(values), 1) for kind, values in speed.items()}
    for kind in VERSUS:
        if kind in speed and "pipeline" in speed:
            told[f"pipeline_to_{kind}"] = round(median(a / b for a, b in zip(speed["pipeline"], speed[kind], strict=True)), 3)
    return told | dict(boxes_per_image={k: round(r[0]["boxes"] / r[0]["pictures"], 2) for k, r in found.items() if k != "raw"},
                       core_ms={k: round(1000 * median(o["core_s"] / o["pictures"] for o in r), 2) for k, r in found.items()}, how=how)


def arms(rows: dict[int, Rounds]) -> dict[str, dict[str, list[float]]]:
    """As the result file has it: one value a round."""
    told: dict[str, dict[str, list[float]]] = {NAMES[kind]: {} for kind in next(iter(rows.values()))}
    for imgsz, found in rows.items():
        for kind, rounds in found.items():
            told[NAMES[kind]] |= {f"{imgsz} px, images/s": [round(o["pictures"] / o["seconds"], 1) for o in rounds],
                                  f"{imgsz} px, core ms": [round(1000 * o["core_s"] / o["pictures"], 2) for o in rounds]}
            if kind != "pipeline":
                told[NAMES[kind]][f"{imgsz} px, pipeline is so many times as fast"] = [
                    round(a["pictures"] / a["seconds"] * b["seconds"] / b["pictures"], 3)
                    for a, b in zip(found["pipeline"], rounds, strict=True)]
    return told


def notes(rows: list[dict[str, Any]], rounds: int, shown: str, model: str) -> str:
    each = "; ".join(f"{r['imgsz']} px: {', '.join(f'{k} {h}' for k, h in r['how'].items())}; "
                     f"{r['boxes_per_image'].get('pipeline', 0):g} boxes an image above {0.05}" for r in rows)
    return f"{shown}, unread files to rows in Parquet; {model}; {rounds} rounds in turn, {cores()} cores. {each}."


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--imgsz", type=int, nargs="+", default=[224, 640])
    ap.add_argument("--model", type=Path, default=demo_assets() / "model", help="folder of a deployed YOLO11 detector")
    ap.add_argument("--rounds", type=int, default=ROUNDS)
    ap.add_argument("--images", type=int, help="pictures of a round, at each size")
    ap.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="for a profile: nothing is written down")
    ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    name = json.loads((a.model / "model.json").read_text())["name"]
    told, every, shown = list[dict[str, Any]](), dict[int, Rounds](), ""
    with tempfile.TemporaryDirectory(prefix="inference-") as folder:
        for imgsz in a.imgsz:
            count = a.images or max(360, AT_224 * 224**2 // imgsz**2)
            every[imgsz], how, shown = measured(a.model.resolve(), imgsz, a.rounds, count, Path(folder), a.only)
            told.append(row(imgsz, every[imgsz], how))
            print(json.dumps(told[-1]), flush=True)
    gpu = DEVICE != "cpu"
    if set(a.only) == set(KINDS) - ({"yolo_openvino"} if gpu else set()):
        sizes = " ".join(map(str, a.imgsz))
        write("inference-gpu" if gpu else "inference", f"python -m backend bench inference --imgsz {sizes} --json", arms(every), [],
              notes(told, a.rounds, shown, f"YOLO11n, model {name}"),
              PACKAGES if not gpu else PACKAGES[1:])


if __name__ == "__main__":
    main()
