"""Which pictures stay on disk after they were inspected: all while there is room, then all rejects and unusual ones and a few good ones.

Whether a good one stays is drawn from its own hash, so the same picture meets the same lot wherever it comes again.
The chance is written down with each picture, so that shares of good ones can still be worked out. Knows nothing of models.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from backend.config import data_root
from backend.data import images

LEAST_FREE = 2 * 10**9
LEAST_SHARE = 0.05
GOOD_SHARE = 0.01                       # of the good ones, once the disk is at its limit
EARLY = 2.0                             # warn at this many times the limit


def drawn(image_id: str, share: float) -> bool:
    """Whether a picture stays by lot, where this share of its like does. One that does not may lie on disk all the same, for another
    reason: it stands for no other."""
    return share >= 1 or int(image_id[:8], 16) < share * 2**32


class Keeper:
    """Keeps pictures of one batch. `look` at the disk now and then; `warnings` says what a person should know."""

    def __init__(self, usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage) -> None:
        self._usage = usage
        self._warnings: dict[str, str] = {}
        self.share = 1.0
        self.look()

    @property
    def warnings(self) -> list[str]:
        return list(self._warnings.values())

    def look(self) -> None:
        """Measure the disk. Some other program may have filled or freed it."""
        data_root().mkdir(parents=True, exist_ok=True)
        total, _, free = self._usage(data_root())
        limit = max(LEAST_FREE, LEAST_SHARE * total)
        self.share = 1.0 if free >= limit else GOOD_SHARE
        if free < limit:
            self._warnings["disk"] = (f"The disk is nearly full: {free / 1e9:.1f} GB are free. Of good pictures only "
                                      f"{GOOD_SHARE:.0%} are kept, drawn at random; all rejects and unusual ones are, by the "
                                      "models' own limits, not by those set by hand.")
        elif free < EARLY * limit and "disk" not in self._warnings:
            self._warnings["disk"] = (f"Disk space is getting low: {free / 1e9:.1f} GB are free. Below {limit / 1e9:.1f} GB "
                                      f"only {GOOD_SHARE:.0%} of the good pictures will be kept.")

    def keep(self, data: bytes, image_id: str, format: str, is_wanted: bool) -> tuple[bool, float]:
        """Keep a picture or not; rejects and unusual ones are wanted. Returns whether it is on disk, and the chance that a picture judged
        like it had to stay."""
        chance = 1.0 if is_wanted else self.share
        if not drawn(image_id, chance):
            return images.path_of(image_id) is not None, chance
        try:
            images.keep(data, image_id, format, durable=False)
        except OSError as e:                                      # a full disk must not cost the verdict
            self._warnings["write"] = f"Some pictures could not be kept: {e.strerror}."
            return False, chance
        return True, chance

    def settle(self) -> None:
        """Wait until what was kept is on disk: before rows say so."""
        try:
            images.settle()
        except FileNotFoundError:                                 # nothing was ever kept
            pass
        except OSError as e:
            self._warnings["write"] = f"Some pictures could not be kept: {e.strerror}."
