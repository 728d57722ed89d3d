"""Out of memory, recognised: by the error that a library raised, or by the kernel's count of processes it killed.

Knows nothing of runs.
"""

import re
from pathlib import Path

SENTENCE = "Out of memory. Try a smaller batch or image size, or close other programs first."
_WORDS = re.compile(r"out of memory|(can't|cannot|failed to|unable to) allocate|bad_alloc|killed by signal: killed", re.IGNORECASE)


def ran_out(error: BaseException) -> bool:
    """Whether an error, or what caused it, means that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError" or _WORDS.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for memory so far: in our control group and on the machine, added up."""
    files = [root / "proc/vmstat", *_group_files(root)]
    return sum(_count(f) for f in files)


def _group_files(root: Path) -> list[Path]:
    """Version 2 counts in memory.events, version 1 in memory.oom_control. In a container our group is the root of what we see."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = [line.split(":", 2) for line in lines]
    found = []
    for _, controllers, path in own:
        if controllers == "":
            found += _first(root / "sys/fs/cgroup", path, "memory.events")
        elif "memory" in controllers.split(","):
            found += _first(root / "sys/fs/cgroup/memory", path, "memory.oom_control")
    return found


def _first(mount: Path, path: str, name: str) -> list[Path]:
    both = [mount / path.lstrip("/") / name, mount / name]
    return [f for f in both if f.exists()][:1]


def _count(path: Path) -> int:
    try:
        return sum(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("oom_kill "))
    except (OSError, ValueError, IndexError):
        return 0
