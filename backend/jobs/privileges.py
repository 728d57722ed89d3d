"""Whether this process has the rights of root, which nothing here needs.

What it opens was made by strangers, and who takes a process over has its rights: root's are the machine's, and no limit of a cell or a
worker holds root for long. So as root the server answers at this machine alone, and says what is better; wider it does not start. In a
container root may be nobody outside of it: whoever knows that sets DIFFSPECT_ROOT=allowed.
"""

import os

from backend.errors import ConfigError
from backend.jobs.entrance import loopback

WORD = "DIFFSPECT_ROOT"
ADVICE = "Give it an account of its own, without rights beyond its data folder (systemd: User=diffspect; container: --user 1000)."
WIDE = (f"Diffspect runs as root, so it does not listen beyond this machine. {ADVICE} Where root has no rights outside of a container, set "
        f"{WORD}=allowed.")
HERE = f"Diffspect runs as root, which it never needs: a file that takes a decoder over would have the machine. {ADVICE}"


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def warning(address: str | None) -> str:
    """What somebody should know who starts a server at this address (None: all of the machine's); '' for nothing. Raises ConfigError where
    it may not start."""
    if not is_root() or os.environ.get(WORD) == "allowed":
        return ""
    if address is None or not loopback(address):
        raise ConfigError(WIDE)
    return HERE
