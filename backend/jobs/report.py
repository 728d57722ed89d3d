"""What a recipe calls to say how far it is: `report(step=, total=, message="", **metrics)`.

Writes progress.json (five times a second at most, the last one always) and metrics.jsonl, works out the time left, and
raises `Canceled` once a person asked for it. Knows nothing of the recipe.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import Canceled
from backend.rundir import write_json

INTERVAL_S = 0.2                        # between two writes of progress.json


class Reporter:
    """One attempt's progress. `echo` also gets each written progress: the command line prints it."""

    def __init__(self, run_dir: Path, echo: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.run_dir, self.echo = run_dir, echo
        self.progress: dict[str, Any] = {}
        self._first: tuple[float, float] | None = None       # time and step of the first report: a resumed run starts late
        self._written_at, self._unwritten = -math.inf, False
        self._guard = threading.Lock()
        _mend(run_dir / "metrics.jsonl")

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
                f.write(json.dumps({"step": step, **metrics}) + "\n")
        self.progress = dict(step=step, total=total, message=message or self.progress.get("message", ""), eta_s=self._eta(step, total),
                             metrics={**self.progress.get("metrics", {}), **metrics})
        self._unwritten = True
        if time.monotonic() - self._written_at >= INTERVAL_S or step >= total:
            self._write()

    def _eta(self, step: int, total: int) -> float | None:
        """Seconds left at the average pace of this attempt; None until two reports differ."""
        now = time.monotonic()
        if self._first is None or step < self._first[1]:
            self._first = (now, step)
        began, first = self._first
        return round((now - began) * max(total - step, 0) / (step - first), 1) if step > first else None

    def _write(self) -> None:
        write_json(self.run_dir / "progress.json", self.progress)
        self._written_at, self._unwritten = time.monotonic(), False
        if self.echo is not None:
            self.echo(self.progress)


def _plain(value: Any) -> float | None:
    """A JSON number; None, a gap in the curve, for what JSON has no number for (a loss that became NaN)."""
    number = float(value)
    return number if math.isfinite(number) else None


def _mend(path: Path) -> None:
    """Cut off the half line that a killed attempt left, so that the next line does not run into it."""
    if not path.exists():
        return
    with open(path, "rb+") as f:
        whole = f.read().rfind(b"\n") + 1
        f.truncate(whole)
        os.fsync(f.fileno())
