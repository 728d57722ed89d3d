"""A run's parts as a log of groups, so that a killed inspection goes on where it stood and doubles nothing.

Part N of each table belongs to group N. `inspect.json` states the group's size before its first part is written, and the
part of `inspections` comes last: a group whose rows do not add up to its size was cut off, and is done again with the same
files, ids and part numbers. That is safe, because its detections depend on nothing but the pictures and the model; where a
folder has changed meanwhile it would not be, since the parts that were written may be in the store, and it is refused.
Knows nothing of pictures or engines.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend import rundir
from backend.errors import InputError
from backend.records import SCHEMAS

Rows = list[dict[str, Any]]


class GroupLog:
    """What one inspection has written. `names`: files that are through; `seen`: accepted content, image id to file name."""

    def __init__(self, run_dir: Path) -> None:
        self._dir, self._path = run_dir, run_dir / "inspect.json"
        self.notes: dict[str, Any] = rundir.read_json(self._path) if self._path.exists() else {}
        self._number = self.notes.get("number", 0)
        self._is_first = True                                     # only the first group of an attempt may have been written before
        self.unfinished = 0                                       # size of the group that was cut off, if one was
        if self._rows_of_last() < self.notes.get("size", 0):
            self._number, self.unfinished = self._number - 1, self.notes["size"]
        inspections, refused = self._rows("inspections"), self._rows("refused")
        self.names = Counter[str](inspections["file_name"].to_pylist() + refused["file_name"].to_pylist())
        self.seen = dict(zip(inspections["image_id"].to_pylist(), inspections["file_name"].to_pylist(), strict=True))

    @property
    def accepted(self) -> int:
        """Pictures that have rows."""
        return len(self.seen)

    def note(self, **more: Any) -> None:
        """Remember something about the whole run."""
        self.notes |= more
        rundir.write_json(self._path, self.notes)

    def begin(self, size: int, files: str) -> None:
        """A group of so many files follows; `files` tells their names and contents. Raises InputError where they were others before."""
        self._number += 1
        if self._is_first and self._is_written() and self.notes.get("files", files) != files:
            raise InputError("The pictures have changed since this batch was cut off, so it cannot go on. What was inspected until then "
                             "stays; inspect the rest as a new batch.")
        self._is_first = False
        self.note(number=self._number, size=size, files=files)

    def _is_written(self) -> bool:
        return any(_number_of(p) == self._number for p in rundir.parts(self._dir))

    def finish(self, inspections: Rows, detections: pa.Table, refused: Rows, anomalies: Rows, masters: Rows) -> None:
        assert len(inspections) + len(refused) == self.notes["size"], "each file is accepted or refused"
        for table, rows in (("detections", detections), ("anomalies", anomalies), ("masters", masters), ("refused", refused),
                            ("inspections", inspections)):
            rundir.write_part(self._dir, table, rows, self._number)
        self.names.update(r["file_name"] for r in inspections + refused)
        self.seen |= {r["image_id"]: r["file_name"] for r in inspections}

    def figures(self, thresholds: dict[str, float]) -> dict[str, int]:
        """inspected, refused, counted and defective (a box at or above its class's threshold) of all that was written."""
        detections, counted = self._rows("detections"), self._rows("inspections")["counted"]
        limits = np.array([thresholds[c] for c in detections["class_name"].to_pylist()], np.float32)
        bad = np.unique(detections["inspection_id"].to_numpy()[detections["confidence"].to_numpy() >= limits])
        return dict(inspected=len(counted), refused=len(self._rows("refused")), defective=len(bad), counted=sum(counted.to_pylist()))

    def unusual(self, threshold: float) -> int:
        """Pictures at or above an anomaly model's threshold, of all that was written."""
        return int((self._rows("anomalies", ["anomaly_score"])["anomaly_score"].to_numpy() >= np.float32(threshold)).sum())

    def _rows(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of the finished groups, or only some columns: the maps of a large batch would fill the memory."""
        paths = [p for p in rundir.parts(self._dir, table) if _number_of(p) <= self._number]
        none = SCHEMAS[table].empty_table()
        return pa.concat_tables([none if columns is None else none.select(columns), *(rundir.read_part(p, columns) for p in paths)])

    def _rows_of_last(self) -> int:
        paths = [p for t in ("inspections", "refused") for p in rundir.parts(self._dir, t) if _number_of(p) == self._number]
        return sum(rundir.read_part(p).num_rows for p in paths)


def _number_of(part: Path) -> int:
    return int(part.stem.rsplit("-", 1)[1])
