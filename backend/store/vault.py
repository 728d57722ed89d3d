"""Where a backup lies: a folder that many backups share, or one zip file. Knows nothing of runs, pictures or the data folder.

    FOLDER/files/<2 hex>/<sha256>     each content once, whichever backups have it
    FOLDER/<name>.parquet             what one backup holds: path, size, mtime_ns, mode, digest (the list)
    FOLDER/<name>.json                that it is whole, and what was left out (the head); written last
    FILE.zip                          the files under their own paths, then list.parquet and head.json; hidden until it is whole

Without its head nothing is a backup: one that was killed, or met a full disk, leaves contents that the next one writes anew, and is never
listed. All that is written can be read by its owner alone, since a data folder may hold addresses and hashes of passwords.
"""

import ctypes
import hashlib
import io
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import InputError

FORMAT = 1
CHUNK = 1 << 20
STALE_S = 86_400.0                     # a hidden file that old belongs to nobody who still writes
LIST = pa.schema([("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("mode", pa.int32()), ("digest", pa.string())])
Head = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """One file in a backup. `path` is relative to the data folder, with '/'; `digest` is the SHA-256 of its bytes."""

    path: str
    size: int
    mtime_ns: int
    mode: int
    digest: str


class Writer(Protocol):
    def known(self) -> dict[str, Kept]: ...

    def put(self, path: str, source: Path) -> Kept: ...

    def put_bytes(self, path: str, data: bytes) -> Kept: ...

    def finish(self, files: list[Kept], head: Head) -> str: ...

    def close(self) -> None: ...


class Folder:
    """Writes one backup into a folder; what an earlier one there has is not written again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "files").mkdir(parents=True, exist_ok=True)
        for left in (root / "files").glob(".*"):
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - STALE_S:
                    left.unlink()

    def known(self) -> dict[str, Kept]:
        """By path, what the newest backup here holds and whose content lies here whole."""
        newest = next(iter(heads(self.root)), None)
        found = listed(self.root, newest) if newest else []
        return {one.path: one for one in found if self._size(one.digest) == one.size}

    def _size(self, digest: str) -> int:
        try:
            return os.stat(self._place(digest)).st_size
        except OSError:
            return -1

    def _place(self, digest: str) -> Path:
        return self.root / "files" / digest[:2] / digest

    def put(self, path: str, source: Path) -> Kept:
        with open(source, "rb") as f:
            seen = os.fstat(f.fileno())
            return self._put(path, f, seen.st_mtime_ns, seen.st_mode)

    def put_bytes(self, path: str, data: bytes) -> Kept:
        return self._put(path, io.BytesIO(data), time.time_ns(), 0o644)

    def _put(self, path: str, source: IO[bytes], mtime_ns: int, mode: int) -> Kept:
        temporary = self.root / "files" / f".{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                size, digest = copied(source, out)
            place = self._place(digest)
            place.parent.mkdir(exist_ok=True)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
        return Kept(path, size, mtime_ns, mode & 0o777, digest)

    def finish(self, files: list[Kept], head: Head) -> str:
        """Contents and list on disk first, then the head. Returns the backup's name."""
        name, content = head["name"], _packed(files)
        _write(self.root / f"{name}.parquet", content)
        settle(self.root)
        _write(self.root / f"{name}.json", json.dumps({**head, "list": hashlib.sha256(content).hexdigest()}, indent=1).encode())
        settle(self.root)
        return str(self.root / f"{name}.json")

    def close(self) -> None:
        pass


class Zip:
    """Writes one backup as one file."""

    def __init__(self, path: Path) -> None:
        self.path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise InputError(f"There is a file {path} already. A backup overwrites nothing; name another file, or a folder.")
        self._stream = open(os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")
        self._zip = zipfile.ZipFile(self._stream, "w")             # stored: pictures and Parquet are packed already

    def known(self) -> dict[str, Kept]:
        return {}

    def put(self, path: str, source: Path) -> Kept:
        with open(source, "rb") as f:
            seen = os.fstat(f.fileno())
            return self._put(path, f, seen.st_mtime_ns, seen.st_mode, seen.st_size)

    def put_bytes(self, path: str, data: bytes) -> Kept:
        return self._put(path, io.BytesIO(data), time.time_ns(), 0o644, len(data))

    def _put(self, path: str, source: IO[bytes], mtime_ns: int, mode: int, expected: int) -> Kept:
        with self._zip.open(zipfile.ZipInfo(path), "w", force_zip64=expected > 1 << 30) as out:
            size, digest = copied(source, out)
        return Kept(path, size, mtime_ns, mode & 0o777, digest)

    def finish(self, files: list[Kept], head: Head) -> str:
        content = _packed(files)
        self._zip.writestr("list.parquet", content)
        self._zip.writestr("head.json", json.dumps({**head, "list": hashlib.sha256(content).hexdigest()}, indent=1))
        self._zip.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.rename(self._temporary, self.path)
        settle(self.path.parent)
        return str(self.path)

    def close(self) -> None:
        """Nothing is left of one that was not finished."""
        with suppress(OSError, ValueError):                      # on a full disk closing writes, and fails, once more
            self._zip.close()
        with suppress(OSError, ValueError):
            self._stream.close()
        self._temporary.unlink(missing_ok=True)


def writer(to: Path) -> Writer:
    """A zip file where the name says so, else a folder."""
    return Zip(to) if to.suffix.lower() == ".zip" else Folder(to)


def copied(source: IO[bytes], out: IO[bytes]) -> tuple[int, str]:
    """Copy to the end. Returns size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        digest.update(data)
        out.write(data)
        size += len(data)
    return size, digest.hexdigest()


def settle(folder: Path) -> None:
    """All that was written to this disk is on it when this returns: one wait for many files. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if sync is None:
            os.sync()
        elif sync(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _packed(files: list[Kept]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([vars(one) for one in files], LIST), out, compression="zstd")
    return out.getvalue()


# reading -------------------------------------------------------------------------------------------------------------------


def heads(folder: Path) -> list[Head]:
    """Whole backups in a folder, the newest first."""
    found = []
    for path in sorted(folder.glob("backup-*.json"), reverse=True):
        with suppress(OSError, ValueError):
            head = json.loads(path.read_bytes())
            if head.get("name") == path.stem and (folder / f"{path.stem}.parquet").exists():
                found.append(head)
    return found


def listed(folder: Path, head: Head) -> list[Kept]:
    """The files of a backup in a folder. Raises InputError where its list is damaged."""
    return unpacked((folder / f"{head['name']}.parquet").read_bytes(), head)


def unpacked(content: bytes, head: Head) -> list[Kept]:
    if head.get("format", 0) > FORMAT:
        raise InputError("A newer Diffspect made this backup. Restore it with that version.")
    if hashlib.sha256(content).hexdigest() != head.get("list"):
        raise InputError(f"The list of the backup {head.get('name')} is damaged, so nothing of it can be trusted. Take another backup.")
    return [Kept(**row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]


def free(at: Path) -> int:
    """Bytes free where this folder is, or will be."""
    return shutil.disk_usage(next(p for p in (at, *at.parents) if p.exists())).free


def walk(root: Path) -> Iterator[Path]:
    """Regular files below a folder, in an order; links are not followed."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(folder, name)).is_file() and not path.is_symlink())
