"""The demo plant's master parts: two known plates of line 2, photographed at the start of each shift, so that its imaging check has a say.

Camera and light of the demo are steady. They are rows like any other's, but for what marks them as master parts, and count nowhere.
"""

from datetime import datetime, timedelta
from pathlib import Path

from numpy.random import PCG64, Generator

from backend import rundir
from backend.data.demo_defects import CLASSES, SIDE
from backend.data.demo_inspections import Detector
from backend.data.demo_schedule import CAMERAS, LINES, PRODUCTS, Shift
from backend.records import inspection_ids

LINE, SHIFTS, PART = LINES[1], 60, 900          # the newest shifts that are over; the number of the parts, beyond all others
PIECES = {"A": "demo:11:2a:1:pits", "B": "demo:12:2a:1:pits"}
SURE, BRIGHT, SHARP = (0.82, 0.006), (150.0, 0.8), (0.74, 0.006)        # mean and spread of a reading


def write(run_dir: Path, key: str, seed: int, shifts: list[Shift], now: datetime, model: Detector) -> None:
    """Parts of inspections, detections and masters. `key` is what ids are made of."""
    own = [s for s in shifts if s.line == LINE and s.end <= now][-SHIFTS:]
    rng = Generator(PCG64([seed, 7]))
    ids = iter(inspection_ids(f"{key}/masters", len(own) * len(PIECES)).tolist())
    inspections, detections, masters = [], [], []
    for shift in own:
        for n, (piece, image_id) in enumerate(PIECES.items()):
            i, at = next(ids), shift.start + timedelta(minutes=6 + n)
            score, brightness, sharpness = (mean + spread * rng.standard_normal() for mean, spread in (SURE, BRIGHT, SHARP))
            inspections.append(dict(
                inspection_id=i, plant="demo", image_id=image_id, file_name=f"master_{piece}_{shift.day:%y%m%d}-{shift.name}.png",
                unit_id=piece, line=LINE, product=PRODUCTS["a"], lot="master parts", camera=CAMERAS[LINE][0], captured_at=at,
                captured_source="demo", ingested_at=at + timedelta(seconds=5), width=SIDE, height=SIDE, model_id=model.model_id,
                runtime="demo", counted=False, not_counted_why="master part", kept=True, kept_share=1.0))
            detections.append(dict(inspection_id=i, class_name=CLASSES[2], confidence=score, x1=60.0, y1=60.0, x2=110.0, y2=110.0))
            masters.append(dict(inspection_id=i, piece=piece, brightness=brightness, sharpness=sharpness))
    rundir.write_part(run_dir, "detections", detections, PART)
    rundir.write_part(run_dir, "masters", masters, PART)
    rundir.write_part(run_dir, "inspections", inspections, PART)
