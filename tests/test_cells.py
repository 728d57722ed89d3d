"""Cells: what came from outside is decoded in a process that can do little else, and the app outlives whatever happens there."""

import resource
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import cell
from backend.data import images
from backend.errors import DiffspectError, ImageError, InputError, NotFoundError
from backend.inspection import annotate
from backend.jobs import cells


@pytest.fixture(autouse=True)
def fresh(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cell begun by this test, and none left to the next."""
    monkeypatch.setenv("DIFFSPECT_SECRET_RELAY", "hunter2")
    cells.close()
    yield
    cells.close()


def kept(data: bytes, form: str = "PNG") -> str:
    image_id = images.sha256(data)
    images.keep(data, image_id, form)
    return image_id


def small() -> str:
    out = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(out, "PNG")
    return kept(out.getvalue())


def huge() -> str:
    """81 megapixels in 80 KB."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
    return kept(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9001 * 9000), 1)) + chunk(b"IEND", b""))


def test_a_cell_draws_as_the_app_would_and_says_what_it_cannot(data_folder: Path) -> None:
    image_id, box = small(), dict(class_name="pits", x1=5, y1=5, x2=30, y2=30, confidence=0.9)
    drawn = cells.ask("shown", image_id, [box], 120, "png")
    with Image.open(BytesIO(drawn)) as seen:
        assert (np.asarray(seen) == np.asarray(annotate.draw(images.load(image_id), [box], 120))).all()
    with pytest.raises(NotFoundError, match="This picture was not kept."):
        cells.ask("shown", "a" * 64, [], None, "webp")
    with pytest.raises(ImageError, match="damaged or cut short"):
        cells.ask("shown", kept(b"\xff\xd8\xff cut short", "JPEG"), [], None, "webp")
    with pytest.raises(ImageError, match="something went wrong. The log has the details."):
        cells.ask("shown", image_id, [dict(no="box")], None, "webp")
    with pytest.raises(ImageError, match="something went wrong"):
        cells.ask("os:system", "id")
    assert len(cells._all) == 1, "one was enough for all of them"


def test_a_cell_has_no_secret_and_may_not_write_nor_begin_a_process(data_folder: Path) -> None:
    cells.ask("shown", small(), [], None, "webp")
    inside = Path(f"/proc/{cells._all[0].process.pid}")
    assert b"hunter2" not in (inside / "environ").read_bytes() and b"SECRET" not in (inside / "environ").read_bytes()
    limits = {line[:26].strip(): line[26:].split() for line in (inside / "limits").read_text().splitlines()}
    assert limits["Max file size"][:2] == ["0", "0"] and limits["Max processes"][:2] == ["0", "0"]
    assert limits["Max address space"][0] == str(cell.MEMORY) and 0 < int(limits["Max cpu time"][0]) <= cell.SECONDS + 10


def test_what_takes_too_much_memory_is_refused_and_the_cell_goes_on() -> None:
    image_id = huge()
    cells.ask("shown", small(), [], 40, "webp")
    pid = cells._all[0].process.pid
    now = int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmSize")).split()[1]) * 1024
    resource.prlimit(pid, resource.RLIMIT_AS, (now + 10**8, now + 10**8))
    with pytest.raises(InputError, match="It takes more memory than one file may."):
        cells.ask("shown", image_id, [], 200, "webp")
    assert cells.ask("shown", small(), [], 40, "webp")[8:12] == b"WEBP" and cells._all[0].process.pid == pid


def test_a_cell_that_dies_over_a_picture_costs_that_picture_alone() -> None:
    image_id = small()
    cells.ask("shown", image_id, [], 40, "webp")
    process, said = cells._all[0].process, list[DiffspectError]()

    def ask() -> None:
        try:
            cells.ask("shown", image_id, [], 40, "webp")
        except DiffspectError as error:
            said.append(error)

    process.send_signal(signal.SIGSTOP)                                # as if it were deep in a decoder
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.1)
    process.kill()
    asking.join()
    assert [str(e) for e in said] == [cells.DIED] and isinstance(said[0], ImageError)
    assert cells.ask("shown", image_id, [], 40, "webp")[8:12] == b"WEBP", "another one has taken its place"
    cells._all[0].process.kill()                                       # while nobody asks
    cells._all[0].process.wait()
    assert cells.ask("shown", image_id, [], 40, "webp")[8:12] == b"WEBP" and len(cells._all) == 1


def test_a_cell_that_computes_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its minute of the processor; here by its second."""
    with monkeypatch.context() as patch:
        patch.setattr(cells, "COMMAND", (sys.executable, "-c", "from backend import cell; cell.SECONDS = 0; cell.main()"))
        with pytest.raises(ImageError, match="stopped its reader"):
            cells.ask("shown", huge(), [], 9000, "png")
    assert cells.ask("shown", small(), [], 40, "webp")


def test_the_app_decodes_nothing_itself() -> None:
    """From source: outside of workers and cells nobody asks for a picture's pixels."""
    root = Path(cells.__file__).parent
    asking = {p.name for p in root.glob("*.py") for word in ("images.load", "images.decode", "images.pixels", "Image.open", "coco.read(")
              if word in p.read_text()}
    assert not asking
