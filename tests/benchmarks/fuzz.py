"""2,200 bad uploads by seed, each in a process of its own: what becomes of them, what they cost, and what people are told.

    python -m tests.benchmarks.fuzz [--seed 0] [--least 2000]       about 10 minutes of an idle core

A child is forked from here with everything loaded, so that its memory and seconds are the upload's alone. It may take 4 GB of address
space and 60 s of the processor, as a cell or more; a network 5 s: one that takes more ends by that, as the supervisor ends a worker. What
is found wrong (an exception that is no sentence, a sentence that is none, a file where none belongs, a child that died) is printed, and
fails the run.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

from tests import attempts, hostile
from tests.benchmarks import record

SHARES = {"images": 1026, "zips": 396, "annotations": 406, "onnx": 130, "configs": 300}         # all of one kind's mutations equally often
MEMORY, SECONDS, OF_A_NETWORK = 4 * 2**30, 60, 5
RUNTIMES = ("onnxruntime-cpu", "openvino-f32")
LIMIT = ("onnx",)                      # kinds that may end by their limit: who runs a foreign program can only stop it


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--least", type=int, default=2000)
    options.add_argument("--kinds", default=",".join(SHARES))
    options.add_argument("--out", default="fuzz")
    given = options.parse_args()
    shares = {k: -(-n * given.least // 2000) for k, n in SHARES.items() if k in given.kinds.split(",")}
    for name in ("imagehash", "scipy.ndimage", "scipy.fftpack", "openvino", "onnxruntime"):          # what children would load each
        import_module(name)
    hostile.network()
    base = Path(tempfile.mkdtemp(prefix="diffspect-fuzz-"))
    for kind in ("images", "annotations", "configs"):            # so that all that is loaded when first asked for is there
        (base / f"warm-{kind}").mkdir()
        attempts.attempt(hostile.case(kind, 0, 0, base / f"warm-{kind}" / "upload"), base / f"warm-{kind}")
    wrong: list[str] = []
    arms: dict[str, dict[str, list[float]]] = {}
    try:
        for kind, n in shares.items():
            arms[kind] = _kind(kind, n, given.seed, base, wrong)
            print(kind, {k: v[0] for k, v in arms[kind].items()}, flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(*wrong[:40], sep="\n")
    if given.out:
        there = record.RESULTS / f"{given.out}.json"             # kinds that another call has tried
        arms = (json.loads(there.read_text())["arms"] if there.exists() else {}) | arms
        record.write(given.out, f"python -m tests.benchmarks.fuzz --seed {given.seed}", arms, [given.seed], NOTES,
                     ("pillow", "onnxruntime", "openvino", "numpy"))
    return 1 if wrong else 0


NOTES = ("Each upload in a child of its own, forked with everything loaded: MB and seconds of the processor are the upload's, above the "
         "child's start. 'wrong': exceptions that are no sentence, sentences that show the inside of the program, files where none belong, "
         "children that died otherwise than by their limit (4 GB of address space, 60 s; networks 5 s). Uploads are inspected and imported "
         "together with two good pictures.")


def _kind(kind: str, n: int, seed: int, base: Path, wrong: list[str]) -> dict[str, list[float]]:
    counts: Counter[str] = Counter()
    costs: dict[str, list[float]] = defaultdict(list)
    for number in range(n):
        root = base / f"{kind}-{number}"
        root.mkdir()
        (root / "secret.bin").write_bytes(b"secret" * 1000)          # beside: nothing may read or change it
        done, told = _child(kind, number, seed, root)
        problems = _problems(kind, told, root)
        wrong += [f"{kind} {number} ({done}): {p}" for p in problems]
        counts.update(told["counts"])
        counts.update(uploads=1, wrong=bool(problems), stopped=told["ended"] == "limit", sentences=len(told["said"]))
        costs["mb"].append(told["mb"])
        costs["s"].append(told["s"])
        shutil.rmtree(root, ignore_errors=True)
    return {"uploads": [n], "wrong": [counts["wrong"]], "pictures or networks read": [counts["read"]], "refused": [counts["refused"]],
            "told why the whole cannot be used": [counts["told"]], "imported all the same": [counts["imported"]],
            "stopped by a limit": [counts["stopped"]], "sentences": [counts["sentences"]],
            "MB, most": [round(max(costs["mb"]), 1)], "MB, median": [round(sorted(costs["mb"])[n // 2], 1)],
            "s, most": [round(max(costs["s"]), 2)], "s, median": [round(sorted(costs["s"])[n // 2], 3)]}


def _problems(kind: str, told: dict[str, Any], root: Path) -> list[str]:
    found = [f"{why}: {s[:300]!r}" for s in dict.fromkeys(told["said"]) if (why := attempts.not_plain(s, root))]
    found += [f"a mistake: {told['mistake']}"] if told["mistake"] else []
    found += [f"the child ended by {told['ended']}"] if told["ended"] not in ("", "limit" if kind in LIMIT else "") else []
    found += [f"{name} is where nothing belongs" for name in attempts.outside(root)]
    found += ["the file beside was changed"] if (root / "secret.bin").read_bytes() != b"secret" * 1000 else []
    extra = {p for p, size in attempts.written(root).items() if size >= 0} - {str(root / "secret.bin"), str(root / "told.json")}
    return found + [f"{p} was written" for p in extra if not p.startswith(str(root / "upload"))]


def _child(kind: str, number: int, seed: int, root: Path) -> tuple[str, dict[str, Any]]:
    """What was done to the upload and what came of it. `ended`: '', 'limit', or how else the child died."""
    case = hostile.case(kind, number, seed, root / "upload")
    pid = os.fork()
    if pid == 0:
        _in_child(case, root, RUNTIMES[number % len(RUNTIMES)])
    _, status, used = os.wait4(pid, 0)
    told: dict[str, Any] = dict(counts={}, said=[], mistake="", mb=0.0)
    if (root / "told.json").exists():
        told |= json.loads((root / "told.json").read_text())
    by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    at_limit = by == signal.SIGXCPU or told["mistake"].startswith("MemoryError") or (kind in LIMIT and by == signal.SIGABRT)
    told["mistake"] = "" if at_limit else told["mistake"]
    ended = "limit" if at_limit else f"signal {by}" if by else f"code {code}" if code else ""
    return case.done, told | dict(s=used.ru_utime + used.ru_stime, ended=ended)


def _in_child(case: hostile.Case, root: Path, runtime: str) -> None:
    start, said = _memory("VmRSS"), dict[str, Any]()
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") * 1024 + MEMORY,) * 2)
    seconds = OF_A_NETWORK if case.kind in LIMIT else SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/clear_refs").write_text("5")                # the highest so far is forgotten
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        told = attempts.attempt(case, root, runtime)
        said = dict(counts=dict(told.counts), said=told.said)
    except BaseException as error:
        said = dict(mistake="".join([f"{type(error).__name__}: {error}"[:200], *traceback.format_tb(error.__traceback__)[-2:]]))
    (root / "told.json").write_text(json.dumps(said | dict(mb=(_memory("VmHWM") - start) / 1024)))
    os._exit(0)


def _memory(what: str) -> int:
    """kB."""
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:")).split()[1])


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
