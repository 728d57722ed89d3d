"""What a worker may take that opens files or models from outside: so much memory, and so long a silence.

    lay_down(recipe)            in the worker, before it begins: what is above is refused, and becomes a sentence
    Silence(recipe).too_long    for the supervisor: nothing was reported for so long that something inside does not come back

A zip, an annotation file or a network may be made to grow, or to compute for ever, inside libraries that ask nobody. Of other recipes no
limit is known that would not end honest work; their lane is ended by a person. Knows nothing of recipes but their names.

    DIFFSPECT_WORKER_GB    memory of such a worker, in GB; else 6 and one for each core. Inspecting takes 0.4 to 1.5, an import 0.3, and
                           up to 4 for the largest annotation file that is read
"""

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from backend.device import cores

LIMITED = {"import", "inspect", "predict", "watch"}
# Seconds without a word. An inspection reports about each second, and at least at each picture; an import may read 100,000 label files
# from a slow share before it does. A watch is left alone: who ends it, stops a line's inspection.
SILENCE_S = {"inspect": 900.0, "predict": 900.0, "import": 3600.0}
ON_A_GPU = {"inspect", "predict", "watch"}         # where there is one, CUDA reserves what no limit can tell from use
DRIVER = Path("/proc/driver/nvidia/version")
SILENT = ("It reported nothing for {} minutes, so it was ended: a file or the model keeps it busy without end. Try it with half of the "
          "files to find which.")
LARGE = ("It took all of the {:.3g} GB of memory that a run of this kind may take. A file is larger inside than it looks, or there are too "
         "many at once. DIFFSPECT_WORKER_GB sets another limit.")


def gigabytes() -> float:
    try:
        return float(os.environ.get("DIFFSPECT_WORKER_GB", "")) or 6.0 + cores()
    except ValueError:
        return 6.0 + cores()


def lay_down(recipe: str) -> None:
    """Hold this process to its limits, from now on. Private memory that can be written is counted: libraries reserve, and map files, by
    the gigabyte."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))           # a picture that ends it is left nowhere
    with suppress(OSError):                                    # where memory runs out, workers go before the app and the supervisor
        Path("/proc/self/oom_score_adj").write_text("300")
    if recipe in LIMITED and not (recipe in ON_A_GPU and DRIVER.exists()):
        most = int(gigabytes() * 2**30)
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most if highest == resource.RLIM_INFINITY else min(most, highest), highest))


def reached() -> str:
    """Why memory ran out, where this process had a limit of its own; '' where it had none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return "" if soft == resource.RLIM_INFINITY else LARGE.format(soft / 2**30)


@dataclass
class Silence:
    """How long a run has said nothing, by a clock that stands still while the machine sleeps."""

    recipe: str
    last: int = 0                      # when it wrote something, ns
    since: float = field(default_factory=time.monotonic)

    def too_long(self, run_dir: Path) -> bool:
        if self.recipe not in SILENCE_S:
            return False
        written = max(_written(run_dir / name) for name in ("progress.json", "state.json"))
        if written != self.last:
            self.last, self.since = written, time.monotonic()
        return time.monotonic() - self.since > SILENCE_S[self.recipe]

    @property
    def sentence(self) -> str:
        return SILENT.format(f"{SILENCE_S[self.recipe] / 60:.3g}")


def _written(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
