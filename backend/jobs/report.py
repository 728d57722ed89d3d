"""What a recipe calls to say how far it is: `report(step=, total=, message="", **metrics)`.

Writes progress.json (five times a second at most, the last one always) and metrics.jsonl, works out the time left, and
raises `Canceled` once a person asked for it. Knows nothing of the recipe.
"""

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import Canceled
from backend.rundir import write_json

INTERVAL_S = 0.2                        # between two writes of progress.json
RECENT_S = 60.0                         # the pace is taken over so long at least


class Reporter:
    """One attempt's progress. `echo` also gets each written progress: the command line prints it."""

    def __init__(self, run_dir: Path, echo: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.run_dir, self.echo = run_dir, echo
        self.progress: dict[str, Any] = {}
        self._began = -math.inf
        self._marks: deque[tuple[float, int]] = deque()      # when it was how far, lately: a resumed run starts late
        self._written_at, self._unwritten = -math.inf, False
        self._guard = threading.Lock()
        self._worked_s = _mend(run_dir / "metrics.jsonl") - time.monotonic()      # with the clock added: seconds at work, all attempts

    def __call__(self, *, step: int, total: int, message: str = "", **metrics: float) -> None:
        with self._guard:
            self._note(int(step), int(total), message, {k: _plain(v) for k, v in metrics.items()})
        self.check()

    def check(self) -> None:
        if (self.run_dir / "cancel").exists():
            raise Canceled

    def flush(self) -> None:
        with self._guard:
            if self._unwritten:
                self._write()

    def _note(self, step: int, total: int, message: str, metrics: dict[str, float | None]) -> None:
        if metrics:
            with open(self.run_dir / "metrics.jsonl", "a") as f:
                f.write(json.dumps({"step": step, "at_s": round(self._worked_s + time.monotonic(), 2), **metrics}) + "\n")
        self.progress = dict(step=step, total=total, message=message or self.progress.get("message", ""), eta_s=self._eta(step, total),
                             metrics={**self.progress.get("metrics", {}), **metrics})
        self._unwritten = True
        if time.monotonic() - self._written_at >= INTERVAL_S or step >= total:
            self._write()

    def _eta(self, step: int, total: int) -> float | None:
        """Seconds left at the pace of the last quarter of this attempt, since stages differ; None until two reports differ. Within a step,
        an epoch for instance, the clock goes on: it falls with each report, and rises only once the step takes longer than those before."""
        now, marks = time.monotonic(), self._marks
        if not marks or step < marks[-1][1]:
            marks.clear()
            self._began = now
        recent = max(RECENT_S, (now - self._began) / 4)
        if not marks or (step > marks[-1][1] and now - marks[-1][0] >= recent / 100):
            marks.append((now, step))
        while len(marks) > 2 and marks[1][0] <= now - recent:
            marks.popleft()
        (then, first), (latest, last) = marks[0], marks[-1]
        if step == first:
            return None
        if step >= total:
            return 0.0
        done, told = (latest - then, last - first) if last > first else (now - then, step - first)
        pace = max(done / told, (now - then) / (step - first + 1))             # this step is not yet over
        return round(max(pace * (total - last) - (now - latest), pace * (total - step - 1), 0.0), 1)

    def _write(self) -> None:
        write_json(self.run_dir / "progress.json", self.progress, lasting=False)
        self._written_at, self._unwritten = time.monotonic(), False
        if self.echo is not None:
            self.echo(self.progress)


def _plain(value: Any) -> float | None:
    """A JSON number; None, a gap in the curve, for what JSON has no number for (a loss that became NaN)."""
    number = float(value)
    return number if math.isfinite(number) else None


def _mend(path: Path) -> float:
    """Cut off the half line that a killed attempt left, so that the next line does not run into it. Seconds worked until the last whole
    one: what was lost with the attempt after it is not counted."""
    if not path.exists():
        return 0.0
    with open(path, "rb+") as f:
        lines = f.read()
        f.truncate(whole := lines.rfind(b"\n") + 1)
        os.fsync(f.fileno())
    last = lines[:whole].splitlines()[-1:]
    return float(json.loads(last[0]).get("at_s", 0.0)) if last else 0.0
