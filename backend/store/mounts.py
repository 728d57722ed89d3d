"""On what kind of disk a folder lies, by the system's table of mounts; and the refusal of network shares.

The embedded database and the locks that say who is alive both need a disk of this machine: over NFS and CIFS a lock may be granted twice or
be lost with the connection, and DuckDB says of itself that its file must not lie there. Loads no DuckDB.
"""

import re
from pathlib import Path

from backend.errors import StoreError

TABLE = Path("/proc/mounts")
SHARES = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs", "lustre", "beegfs", "davfs", "gfs2", "ocfs2"}
FUSES = ("sshfs", "glusterfs", "s3fs", "rclone", "davfs", "ceph-fuse", "mountpoint-s3", "gcsfuse", "blobfuse", "smbnetfs", "curlftpfs")


def of(path: Path) -> tuple[str, str]:
    """Mount point and kind of the file system that a path lies on, or will lie on: the longest mount that leads to it, of two on one point
    the later, which covers the other. ('', '') where the system has no such table."""
    try:
        lines = TABLE.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    there, found = path.expanduser().resolve(), ("", "")
    for line in lines:
        if len(words := line.split(" ")) < 3:
            continue
        point = Path(_plain(words[1]))
        if there.is_relative_to(point) and len(str(point)) >= len(found[0]):
            found = str(point), words[2]
    return found


def _plain(name: str) -> str:
    r"""Blanks and the like are written as \040."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), name)


def is_share(kind: str) -> bool:
    """Whether a file system lies on another machine."""
    return kind in SHARES or (kind.startswith("fuse") and kind.removeprefix("fuse.").startswith(FUSES))


def refuse_share(path: Path) -> None:
    """Raises StoreError where a data folder lies on a network share."""
    point, kind = of(path)
    if is_share(kind):
        raise StoreError(f"The data folder {path} lies on a network share ({kind}, mounted at {point}). The database and the locks of "
                         "Diffspect need a disk of this machine: set DIFFSPECT_DATA to a folder on one, and use the share for backups.")
