"""Starts, watches and ends the process of a run on this machine: start, poll, end. `cluster` has the same three for many machines.

Each run gets a session of its own, so that all it forks ends with it. Only exit codes come back; all else is in the run
directory. Knows nothing of queues or states.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backend.config import data_root
from backend.device import cores
from backend.jobs import logs

ROOT = Path(__file__).resolve().parents[2]


def offline() -> dict[str, str]:
    """What keeps the libraries of a recipe from downloading, installing, phoning home or unpickling; set before they load.

    HF_HUB_OFFLINE=0 in the environment lets a recipe fetch the checkpoint that a person names by its hub name.
    """
    return {
        "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "ULTRALYTICS_SAFE_LOAD": "1",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "YOLO_CONFIG_DIR": str(data_root() / "settings"), "MPLCONFIGDIR": str(data_root() / "settings"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores())),
    }


def environment() -> dict[str, str]:
    return {**os.environ, **offline(), "DIFFSPECT_DATA": str(data_root()), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1",
            logs.SPAWNED: "1"}


def spawn(*arguments: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """`python -m backend <arguments>` in a session of its own, printing to output.log until it opens a log of its own."""
    logs.folder().mkdir(parents=True, exist_ok=True)
    with open(logs.folder() / "output.log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "backend", *arguments], cwd=ROOT, env=environment(), stdin=stdin,
                                stdout=log, stderr=log, start_new_session=True)


@dataclass
class Job:
    """The process of one run, or a warm one that still waits for its run."""

    process: "subprocess.Popen[bytes]"

    def poll(self) -> int | None:
        """The exit code (negative: the signal), None while it runs. What it forked is killed before it is reaped:
        until then its id, and so its group's, can belong to nobody else."""
        if self.process.returncode is None and self._ended():
            self.signal(signal.SIGKILL)
        return self.process.poll()

    def _ended(self) -> bool:
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def hand(self, run_id: str) -> bool:
        """Give a warm process its run. False where it has died meanwhile."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{run_id}\n".encode())
            self.process.stdin.close()
        except OSError:
            return False
        return self.process.poll() is None

    def dismiss(self) -> None:
        """Let a warm process go: it ends when its input does."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)                                # it may be loading its model yet
        self.signal(signal.SIGKILL)
        self.process.wait()


def on_cluster() -> str:
    """The job of a cluster that this process is; '' on the app's own machine."""
    return os.environ.get("DIFFSPECT_ON_CLUSTER", "")


class Local:
    """Runs as processes on this machine."""

    def start(self, run_id: str) -> Job:
        return Job(spawn("run", run_id))

    def warm(self) -> Job:
        return Job(spawn("run", "--warm", stdin=subprocess.PIPE))


def remaining(run_dir: Path) -> Iterator[int]:
    """Processes that print into this run's log: whoever is left of it, even where the supervisor that started it is gone.

    By what they hold open and not by a stored pid, which may be someone else's by now.
    """
    log = str(run_dir / "log.txt")
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid() and any(_prints_to(entry.path, n) == log for n in (1, 2)):
            yield int(entry.name)


def _prints_to(process: str, descriptor: int) -> str:
    with suppress(OSError):
        return os.readlink(f"{process}/fd/{descriptor}")
    return ""


def signal_remaining(run_dir: Path, number: int) -> None:
    for pid in remaining(run_dir):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
