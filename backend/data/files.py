"""First step of every way in: a file, folder, zip or upload inbox becomes a list of entries that can be read one by one.

Nothing is unpacked to disk and no name from outside ever becomes a path: names are made printable and only shown.
What cannot be used becomes a `Refusal` with its reason, and the rest goes on. Knows the first bytes of files (`kind`),
nothing of pixels.
"""

import json
import lzma
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from backend.errors import InputError

MAX_BYTES = 200 * 10**6            # one file
MAX_ENTRIES = 100_000              # files in one zip
MAX_DIRECTORY = 50 * 10**6         # bytes that say what is in a zip: 500 for each of so many files
TAIL = 65_557 + 76                 # bytes at its end in which that stands: a comment of 64 KB may follow
MAX_TOTAL = 20 * 10**9             # bytes one zip may unpack to
MAX_RATIO = 200                    # unpacked to packed; text and flat pictures reach 100, a bomb 1,000
RATIO_FROM = 10 * 10**6            # smaller entries may be packed as tightly as they like
SYSTEM = {"thumbs.db", "desktop.ini", ".ds_store", "__macosx", ".directory"}
NOT_PICTURES = {"txt", "xml", "json", "jsonl", "yaml", "yml", "csv", "tsv", "md", "rst", "htm", "html", "pdf", "log", "ini", "cfg",
                "toml", "db", "cache", "py", "m", "mat", "npy", "npz", "pt", "onnx", "doc", "docx", "xls", "xlsx", "lnk", "url"}
ARCHIVES = {"zip", "7z", "rar", "tar", "gz", "tgz", "bz2", "xz"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_FOREIGN = {b"GIF8": "GIF", b"%PDF": "PDF", b"8BPS": "Photoshop", b"\x00\x00\x00\x0cjP  ": "JPEG 2000", b"P5\n": "PGM", b"P6\n": "PPM"}


@dataclass(frozen=True)
class Source:
    """One file that says it is a picture, read but not decoded."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Refusal:
    """One file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One file that can be read, wherever it lies. `name` is printable, uses '/', and is only shown."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    chosen: bool = False               # a person picked this very file, so it is never skipped without a word

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """All bytes. Raises InputError with the reason."""
        data = b"" if self.size > limit else self.head(self.size + 1)
        if self.size < len(data) <= limit:                   # it has grown; to ask for the limit at once would reserve the memory
            data = self.head(limit + 1)
        if max(self.size, len(data)) > limit:
            raise InputError(f"It is larger than {limit // 10**6} MB.")
        return data

    def head(self, n: int = 32) -> bytes:
        """The first n bytes. Raises InputError with the reason."""
        try:
            with self.open() as f:
                return f.read(n)
        except PermissionError as error:
            raise InputError("It cannot be read: access is denied.") from error
        except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise InputError("It cannot be read: the file or its archive is damaged.") from error

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower().removeprefix(".")


def kind(head: bytes) -> str:
    """What the first bytes say: PNG, JPEG, BMP, TIFF or WEBP (which we read), ZIP, another kind's name, or ''."""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "ZIP"
    if head[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    return next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), "")


def printable(name: str) -> str:
    """A name fit to be shown: one line, no control or direction characters, valid Unicode, at most 250 characters."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in unicodedata.normalize("NFC", name))
    return shown if len(shown) <= 250 else f"…{shown[-249:]}"


@contextmanager
def listing(path: Path) -> Iterator[list[Entry | Refusal]]:
    """Entries of a file, folder, zip or inbox, sorted by name, and what was refused by its name or place alone."""
    with ExitStack() as stack:
        if not path.exists():
            raise InputError(f"There is no file or folder {printable(str(path))}.")
        if (path / "inbox.json").exists():
            found = [e for item in json.loads((path / "inbox.json").read_bytes())
                     for e in _file(path / Path(item["file"]).name, printable(item["name"]), stack)]
        elif path.is_dir():
            found = list(_folder(path))
        else:
            found = list(_file(path, "", stack))
        yield [e for e in found if not is_system(e.name)]


def is_system(name: str) -> bool:
    """Files that operating systems leave behind: never data, never worth a word."""
    return any(p.lower() in SYSTEM or p.startswith("._") for p in PurePosixPath(name).parts)


def read(path: Path) -> Iterator[Source | Refusal]:
    """Pictures of a file, folder, zip or inbox, each read whole, one at a time.

    What is clearly no picture (annotations, notes) is passed over without a word, unless a person chose that very file.
    """
    with listing(path) as entries:
        for entry in entries:
            found = entry if isinstance(entry, Refusal) else source(entry)
            if found is not None:
                yield found


def source(entry: Entry) -> Source | Refusal | None:
    """The entry as a picture, a refusal, or None where it is clearly no picture."""
    try:
        if beside(entry):
            return None
        return Source(entry.name, entry.read())
    except InputError as error:
        return Refusal(entry.name, str(error))


def beside(entry: Entry) -> bool:
    """Whether this is something that lies beside pictures: a name that says so, and no first bytes that say otherwise."""
    return named_beside(entry) and not entry.chosen and kind(entry.head()) in ("", "ZIP", "PDF")


def named_beside(entry: Entry) -> bool:
    return entry.suffix in NOT_PICTURES or PurePosixPath(entry.name).name.startswith(".")


def count(path: Path) -> int:
    """About how many items `read` will yield, by name alone."""
    with listing(path) as entries:
        return sum(isinstance(e, Refusal) or e.chosen or not named_beside(e) for e in entries)


def _file(path: Path, name: str, stack: ExitStack) -> Iterator[Entry | Refusal]:
    """A single file. `name` is what its owner called it; '' means it was named by path, and entries of a zip get no prefix."""
    with open(path, "rb") as f:
        is_zip = kind(f.read(32)) == "ZIP"
    if not is_zip:
        yield Entry(name or printable(path.name), path.stat().st_size, lambda: open(path, "rb"), chosen=True)
        return
    if _directory(path) > MAX_DIRECTORY:
        yield Refusal(name or printable(path.name), f"It holds more than {MAX_ENTRIES:,} files.")
        return
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        yield Refusal(name or printable(path.name), "It is a zip file, but damaged or cut short.")
        return
    yield from _zip(archive, name or printable(path.name), f"{name}/" if name else "")


def _directory(path: Path) -> int:
    """Bytes that a zip's directory claims to have. It is read whole and made into objects ten times as large before anybody can count them,
    so a file of nothing but entries would take all memory there is."""
    with open(path, "rb") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - TAIL))
        tail = f.read()
    ends = {len(tail) - 22, tail.rfind(b"PK\x05\x06")}          # without a comment, or before one
    return min(size, max((_claimed(tail, at) for at in ends if at >= 0 and tail[at:at + 4] == b"PK\x05\x06"), default=0))


def _claimed(tail: bytes, at: int) -> int:
    """What the record at `at` says, or the wide one that belongs to it."""
    wide = at - 76
    if wide >= 0 and tail[at - 20:at - 16] == b"PK\x06\x07" and tail[wide:wide + 4] == b"PK\x06\x06":
        return int.from_bytes(tail[wide + 40:wide + 48], "little")
    return int.from_bytes(tail[at + 12:at + 16], "little")


def _zip(archive: zipfile.ZipFile, name: str, prefix: str) -> Iterator[Entry | Refusal]:
    items = [i for i in archive.infolist() if not i.is_dir()]
    if len(items) > MAX_ENTRIES:
        yield Refusal(name, f"It holds more than {MAX_ENTRIES:,} files.")
    elif sum(i.file_size for i in items) > MAX_TOTAL:
        yield Refusal(name, f"It would unpack to more than {MAX_TOTAL // 10**9} GB.")
    elif not items:
        yield Refusal(name, "It is an empty zip file.")
    else:
        for item in sorted(items, key=lambda i: i.filename):
            reason = _zip_reason(item)
            shown = prefix + printable(item.filename.replace("\\", "/"))
            yield Refusal(shown, reason) if reason else Entry(shown, item.file_size, _opener(archive, item))


def _opener(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(item)      # never hands out more than item.file_size, whatever the data says


def _zip_reason(item: zipfile.ZipInfo) -> str:
    """Why this entry of a zip is refused, from its directory record alone; '' if it is not."""
    raw, mode = item.orig_filename, item.external_attr >> 16
    if item.flag_bits & 0x1:
        return "It is encrypted. Send it without a password."
    if raw.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", raw) or "\0" in raw:
        return "Its name in the zip points to a place outside the zip (an absolute path)."
    if ".." in re.split(r"[/\\]", raw):
        return "Its name in the zip points to a place outside the zip ('..')."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "It is a link or a device, not a file."
    if PurePosixPath(raw).suffix.lower().removeprefix(".") in ARCHIVES:
        return "It is an archive inside a zip. Send it by itself."
    if item.file_size > MAX_BYTES:
        return f"It is larger than {MAX_BYTES // 10**6} MB."
    if item.file_size > RATIO_FROM and item.file_size > MAX_RATIO * max(1, item.compress_size):
        return f"It unpacks to more than {MAX_RATIO} times its packed size, as a zip bomb does."
    return ""


def _folder(root: Path) -> Iterator[Entry | Refusal]:
    """Files below a folder. Links may lead anywhere inside it and nowhere else; links to folders are not followed."""
    home, closed = root.resolve(), list[OSError]()
    for folder, folders, names in os.walk(root, onerror=closed.append):
        folders.sort()
        here = Path(folder)
        for name in sorted(names + [d for d in folders if (here / d).is_symlink()]):
            path = here / name
            shown, reason = printable(path.relative_to(root).as_posix()), _folder_reason(path, home)
            yield Refusal(shown, reason) if reason else Entry(shown, path.stat().st_size, _file_opener(path))
    yield from (Refusal(printable(str(e.filename)), "It is a folder that cannot be opened: access is denied.") for e in closed)


def _file_opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")


def _folder_reason(path: Path, home: Path) -> str:
    if path.is_symlink() and not path.resolve().is_relative_to(home):
        return "It is a link to a place outside the folder."
    if path.is_symlink() and path.is_dir():
        return "It is a link to a folder; links to folders are not followed."
    if not path.is_file():
        return "It is not a regular file, or a link to nothing."
    if path.suffix.lower().removeprefix(".") in ARCHIVES:
        return "It is an archive inside a folder. Send it by itself."
    return f"It is larger than {MAX_BYTES // 10**6} MB." if path.stat().st_size > MAX_BYTES else ""
