"""One moment of `tests.benchmarks.chaos`: a data folder as it was, a scene played on it, a death or a disk that refuses, what was left, and
whether all is as it must be. Each moment has a folder of its own, so none inherits what another did."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.record import ROOT

HOOK = Path(__file__).with_name("chaos_hook")
DISK_MB = 512                                    # of a moment whose disk fills or refuses: it has one of its own
HOLD_S = 3.0                                     # so long it does
PLAY_S, FINISH_S = 600.0, 900.0                  # a scene and its mending may take, on a machine that is busy; longer is a finding
POINTS = {"app": ("replace", "rename", "fsync", "commit", "checkpoint"), "supervisor": ("replace", "rename", "fsync"),
          "worker": ("replace", "rename", "fsync", "unlink")}


@dataclass(frozen=True)
class Moment:
    """What happens when. By `point` and `nth`, else `seconds` after the scene began; without a role the disk refuses."""

    number: int
    scene: str
    role: str = ""                               # app | supervisor | worker; '' : the disk
    point: str = ""                              # see chaos_hook; '' : by time
    nth: int = 0
    when: str = ""                               # before | inside | after
    delay: float = 0.0
    seconds: float = 0.0
    disk: str = ""                               # full | read-only

    @property
    def words(self) -> str:
        return f"{self.when} {self.point} {self.nth}" if self.point else f"{self.disk or 'killed'} after {self.seconds:.2f} s"


@dataclass
class Outcome:
    moment: Moment
    happened: bool = False                       # the scene may have been over before
    where: str = ""
    resumed: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def environment(data: Path, chaos: dict[str, Any] | None = None) -> dict[str, str]:
    """Of the product's processes; the hook is on their path where something is to happen."""
    quiet = dict(DIFFSPECT_DATA=str(data), DIFFSPECT_WARM="off", DIFFSPECT_MESSENGER="off", OMP_NUM_THREADS="1", YOLO_OFFLINE="1",
                 DIFFSPECT_RECIPES="", DIFFSPECT_STORE="", PYTHONPATH=str(HOOK) if chaos else "", CHAOS=json.dumps(chaos or {}))
    return {**os.environ, **quiet}


def played(scene: str, data: Path, chaos: dict[str, Any] | None = None) -> "subprocess.Popen[str]":
    with open(data.parent / f"{scene}.err", "ab") as err:
        return subprocess.Popen([sys.executable, "-m", "tests.benchmarks.chaos_app", scene], cwd=ROOT, env=environment(data, chaos),
                                text=True, stdout=subprocess.PIPE, stderr=err)


def processes(data: Path) -> list[int]:
    """All that belong to this data folder."""
    found = []
    for entry in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            if int(entry.name) != os.getpid() and f"DIFFSPECT_DATA={data}\0".encode() in Path(entry.path, "environ").read_bytes():
                found.append(int(entry.name))
    return found


def end(data: Path) -> None:
    """Nobody of this folder is left: as after a power cut, so it is part of the trial."""
    until = time.monotonic() + 30
    while (left := processes(data)) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def victim(role: str, data: Path, app: int) -> int | None:
    """Pid of the process in this role; of workers the first that works."""
    from backend.jobs import locks

    if role == "app":
        return app
    files = [data / "supervisor.lock"] if role == "supervisor" else sorted((data / "runs").glob("*/lock"))
    return next((pid for file in files if (pid := locks.holder(file)) is not None), None)


class Disk:
    """A disk of its own under the data folder, which can be filled, or turned read-only as a failing one is: under files that are open."""

    def __init__(self, data: Path, wanted: bool) -> None:
        self.data, self.image = data, data.parent / "disk.img"
        self.wanted, self.filler = wanted, data / ".filler"

    def __enter__(self) -> "Disk":
        self.data.mkdir(parents=True, exist_ok=True)
        if self.wanted:
            with open(self.image, "wb") as f:
                f.truncate(DISK_MB << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
            self._mount()
        return self

    def __exit__(self, *how: object) -> None:
        if self.wanted:
            subprocess.run(["umount", "-l", str(self.data)], check=True)

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.data)], check=True)

    def refuse(self, kind: str) -> None:
        if kind == "full":
            with suppress(OSError), open(self.filler, "wb", buffering=0) as f:
                while True:
                    f.write(b"\0" * 4096)
        else:
            said = subprocess.run(["losetup", "-j", str(self.image)], capture_output=True, text=True, check=True).stdout
            Path("/sys/fs/ext4", Path(said.split(":")[0]).name, "trigger_fs_error").write_text("1")

    def obey(self, kind: str) -> None:
        """A full one has room again; a read-only one is looked through and mounted anew, which nobody who had files open there survives."""
        if kind == "full":
            self.filler.unlink(missing_ok=True)
            return
        end(self.data)
        until = time.monotonic() + 30            # who was killed lets go of files a moment after it is gone
        while subprocess.run(["umount", str(self.data)], capture_output=True).returncode:
            assert time.monotonic() < until, "somebody has files open there"
            time.sleep(0.1)
        subprocess.run(["e2fsck", "-fy", str(self.image)], check=False, capture_output=True)
        self._mount()


def carried_out(moment: Moment, seed: Path, folder: Path, expected: dict[str, Any]) -> Outcome:
    """The whole of a moment. `seed`: the data folder before; `expected`: what the scene comes to undisturbed."""
    outcome, began = Outcome(moment), time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    data, mark = (folder / "data").resolve(), folder / "mark"
    folder.mkdir(parents=True)
    shutil.copytree(seed.parent / "stock", folder / "stock")
    with Disk(data, bool(moment.disk)) as disk:
        shutil.copytree(seed, data, dirs_exist_ok=True)
        if moment.disk:
            os.sync()                            # what was there before is on the disk; what the program says is there has to be, too
        try:
            promised = _disturbed(moment, disk, mark, outcome)
            finished = _finished(data, outcome)
            from tests.benchmarks import chaos_check

            outcome.problems += chaos_check.problems(data, moment.scene, promised, finished, expected)
        finally:
            end(data)
    outcome.seconds = round(time.monotonic() - began, 1)
    if not outcome.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _disturbed(moment: Moment, disk: Disk, mark: Path, outcome: Outcome) -> list[dict[str, Any]]:
    """Play the scene until its end or its death; what it promised until then."""
    data, refused = disk.data, False
    chaos = dict(role=moment.role, point=moment.point, nth=moment.nth, when=moment.when, delay=moment.delay, mark=str(mark))
    app, began, done = played(moment.scene, data, chaos if moment.point else None), time.monotonic(), False
    ended_at = 0.0
    while app.poll() is None and time.monotonic() - began < PLAY_S:
        at = time.monotonic() - began
        if not moment.point and not done and at >= moment.seconds:
            if moment.disk:
                disk.refuse(moment.disk)
                refused, done, ended_at, outcome.happened = True, True, at + HOLD_S, True
            elif (pid := victim(moment.role, data, app.pid)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done, outcome.happened = True, True
        if refused and at >= ended_at:
            disk.obey(moment.disk)
            refused = False
        if mark.exists() and moment.role != "app" and not ended_at:
            ended_at = at + 5.0                  # the app goes on for a while: it has to live with the death of another
        if mark.exists() and ended_at and at >= ended_at and moment.role != "app" and moment.number % 2:
            break                                # and every second time the power fails then
        time.sleep(0.01)
    if refused:
        disk.obey(moment.disk)
    if app.poll() is None and time.monotonic() - began >= PLAY_S:
        outcome.problems.append("the app did not come to rest, though nobody killed it")
    if mark.exists():
        outcome.happened, outcome.where = True, mark.read_text()[:200]
    by_itself = app.poll()
    app.kill()
    said = app.communicate(timeout=30)[0]
    if by_itself and by_itself > 0:
        outcome.problems.append(f"a page would have shown a traceback: {(data.parent / f'{moment.scene}.err').read_text()[-400:]}")
    if moment.number % 2:
        end(data)                                # all at once, as the power does
    return [json.loads(line) for line in said.splitlines() if line.startswith("{") and line.endswith("}")]


def _finished(data: Path, outcome: Outcome) -> dict[str, Any]:
    """The next start of the program, and a person who resumes what offers it."""
    app = played("finish", data)
    try:
        said, _ = app.communicate(timeout=FINISH_S)
    except subprocess.TimeoutExpired:
        app.kill()
        said = app.communicate()[0]
        outcome.problems.append("after the crash it did not come to rest")
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    outcome.resumed = sum("resumed" in line for line in lines)
    if app.returncode != 0 and not outcome.problems:
        outcome.problems.append(f"after the crash the program failed: {(data.parent / 'finish.err').read_text()[-300:]}")
    return dict(next((line for line in lines if "states" in line), {"states": {}})["states"])
