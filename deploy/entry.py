"""The first process of the container: starts the dashboard, and ends all that it started when the container is stopped.

Supervisor, workers and messenger live in sessions of their own, so that a restarted dashboard finds them; in a container nobody would tell
them that it ends. So SIGTERM goes to every process: workers write their runs down as interrupted, to be resumed. Runs as process 1, to
which the kernel hands the children of those that ended.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

GRACE_S = 45                             # then whatever is left dies; `podman stop --time` has to be longer


stopping = False


def stop(number: int, frame: FrameType | None) -> None:
    global stopping
    stopping = True
    tell_all(signal.SIGTERM)


def tell_all(number: int) -> None:
    """To every process but this one: -1 means that, in a container."""
    signal.alarm(GRACE_S)
    with suppress(ProcessLookupError):
        os.kill(-1, number)


def kill_all(number: int, frame: FrameType | None) -> None:
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def main() -> int:
    if os.getpid() != 1:
        sys.exit("This is for a container, where it is process 1: elsewhere it would end every process of this user.")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, kill_all)
    app = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", *sys.argv[1:]])
    code = 1
    with suppress(ChildProcessError):                            # raised once none is left
        while True:
            pid, status = os.wait()
            if pid == app.pid:                                   # stopped, or died: without it the container is of no use
                app.returncode = code = os.waitstatus_to_exitcode(status)
                tell_all(signal.SIGTERM)
    return 0 if stopping else abs(code)


if __name__ == "__main__":
    sys.exit(main())
