"""The inside of a cell: a process that looks at bytes from outside in place of the app, and can do little else. `python -m backend.cell`.

    stdin    (what, folder, arguments), pickled, each with its length before it: from the app, which is trusted
    stdout   a sign and bytes, with their length before them: never a pickle, since whoever takes a cell over would write it

A decoder that a crafted file takes over finds a process without secrets in its environment, that may open no file to write, begin no other
process or thread, take no more than `MEMORY` and a minute of the processor for each call. What may be asked is in `DOORS`.
Started and ended by `jobs.cells`; knows nothing of the app.
"""

import os
import pickle  # nosec B403  # read from the app alone
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO

from backend.errors import DiffspectError, ImageError, InputError, NotFoundError

MEMORY = 4 * 2**30                 # address space; a transparent picture of 100 megapixels takes 2.4 GB of it while it is drawn
SECONDS = 60                       # of the processor, a call; that picture takes 9
DOORS = {**{name: f"backend.inspection.drawing:{name}" for name in ("shown", "beside", "veiled", "made")},
         "returned": "backend.data.coco:returned"}
SIGNS: dict[bytes, type[DiffspectError]] = {b"i": ImageError, b"f": InputError, b"n": NotFoundError}      # b"+": an answer
MISTAKE = b"!"
OUT_OF_MEMORY = "It takes more memory than one file may. Is it what it says it is?"
LENGTH = struct.Struct(">Q")


def main() -> None:
    """Serve until the app closes the line."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                                                    # what a library prints is no answer
    shut()
    while (asked := _read(given)) is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (_used() + SECONDS, resource.RLIM_INFINITY))
        sign, said = answer(*pickle.loads(asked))  # nosec B301  # from the app
        answers.write(LENGTH.pack(1 + len(said)) + sign + said)
        answers.flush()


def shut() -> None:
    """From now on. What is to be loaded later is Python's own files, which need no right to write."""
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(kind, (most, most))


def answer(what: str, folder: str, arguments: tuple[Any, ...]) -> tuple[bytes, bytes]:
    """The sign and the bytes; a mistake of ours as its traceback, for the app's log: a cell writes none itself."""
    os.environ["DIFFSPECT_DATA"] = folder
    try:
        return b"+", door(what)(*arguments)
    except MemoryError:
        return b"f", OUT_OF_MEMORY.encode()
    except DiffspectError as error:
        sign = next((s for s, kind in SIGNS.items() if isinstance(error, kind)), b"f")
        return sign, str(error).encode()
    except Exception:
        return MISTAKE, traceback.format_exc().encode()


def door(what: str) -> Callable[..., bytes]:
    module, _, function = DOORS[what].partition(":")
    found: Callable[..., bytes] = getattr(import_module(module), function)
    return found


def _used() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime) + 1


def _read(given: BinaryIO) -> bytes | None:
    head = given.read(LENGTH.size)
    return given.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


if __name__ == "__main__":
    main()
