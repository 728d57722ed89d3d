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

from backend import cell, rundir
from backend.data import images
from backend.errors import DiffspectError, ImageError, InputError, NotFoundError
from backend.inspection import annotate
from backend.jobs import cells, drawings, gallery, pictures


@pytest.fixture(autouse=True)
def fresh(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cell begun by this test, and none left to the next."""
    monkeypatch.setenv("DIFFSPECT_SECRET_RELAY", "hunter2")
    cells.close()
    drawings.forget()
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


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What goes to a cell in this test, from here on."""
    asked, ask = list[bytes](), cells.Cell.ask
    monkeypatch.setattr(cells.Cell, "ask", lambda cell, question: (asked.append(question), ask(cell, question))[1])
    return asked


def test_what_cannot_be_read_is_decoded_once_and_not_for_each_visitor(questions: list[bytes], data_folder: Path) -> None:
    bad, good = kept(b"\xff\xd8\xff cut short", "JPEG"), small()
    for width in (40, 400, None, 40):
        with pytest.raises(ImageError, match="damaged or cut short"):
            pictures.drawn(bad, [], width)
    with pytest.raises(ImageError, match="damaged or cut short"):
        pictures.beside([(good, []), (bad, [])], 40, "webp")
    assert len(questions) == 1
    assert pictures.drawn(good, [], 40) and len(questions) == 2, "nothing else is held against"


def test_what_stops_its_cell_is_tried_twice(questions: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of the processor each time: thirty visitors are not to cost half an hour. Another view may be less work."""
    costly = huge()
    monkeypatch.setattr(cells, "COMMAND", (sys.executable, "-c", "from backend import cell; cell.SECONDS = 0; cell.main()"))
    for n in range(5):
        with pytest.raises(ImageError, match="stopped its reader"):
            pictures.drawn(costly, [dict(class_name="pits", x1=n, y1=0, x2=9, y2=9)], 9000, "png")
    assert len(questions) == 2
    of, view = next((key[:2], key[2:]) for key in drawings._failed)
    with pytest.raises(ImageError, match="stopped its reader"):
        drawings.known(of, view, b"with other boxes")
    assert drawings.known(of, (*view[:-2], "40", "webp"), b"") is None
    monkeypatch.setattr(drawings, "AGAIN_S", 0.0)                      # an hour later
    assert drawings.known(of, view, b"") is None


def test_an_answer_that_took_long_is_kept_until_its_picture_goes(questions: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "LONG_S", 0.0)
    image_id = small()
    first = pictures.drawn(image_id, [], 40)
    assert pictures.drawn(image_id, [], 40) == first and len(questions) == 1
    assert pictures.drawn(image_id, [], 50) != first and len(questions) == 2
    path = images.path_of(image_id)
    assert path is not None
    path.unlink()
    with pytest.raises(NotFoundError, match="was not kept"):
        pictures.drawn(image_id, [], 40)
    small()
    assert pictures.drawn(image_id, [], 40) == first, "what was missing came back"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "FAILURES", 3)
    monkeypatch.setattr(drawings, "BYTES", 250)
    for n in range(10):
        drawings.failed(("plant", str(n)), ImageError("no"))
        drawings.answered(("plant", "slow"), b"%d" % n, b"x" * 100, 9.0)
    assert [one for _, one in drawings._failed] == ["7", "8", "9"] and len(drawings._answers) == 2
    drawings.failed((), ImageError("of nothing that is known again"))
    assert len(drawings._failed) == 3


def test_visitors_who_ask_for_the_same_at_once_take_turns(questions: list[bytes]) -> None:
    bad, said = kept(b"\xff\xd8\xff cut short", "JPEG"), list[str]()

    def ask(width: int) -> None:
        try:
            pictures.drawn(bad, [], width)
        except ImageError as error:
            said.append(str(error))

    visitors = [threading.Thread(target=ask, args=(width,)) for width in range(10, 18)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(said) == 8 and len(set(said)) == 1 and len(questions) == 1 and not drawings._turns


def test_a_made_picture_that_was_replaced_is_looked_at_again(questions: list[bytes], tmp_path: Path) -> None:
    run = rundir.create("synthesize", {})
    (run / "synthetic").mkdir()
    rundir.write_json(run / "synthetic" / "head.json", dict(key="k", items=[dict(file="a.png", width=60, height=40)]))
    (run / "synthetic" / "a.png").write_bytes(b"\x89PNG cut short")
    for _ in range(3):
        with pytest.raises(ImageError):
            gallery.picture(run.name, "a.png", 40, "result", "webp")
    assert len(questions) == 1
    (run / "synthetic" / "a.png").write_bytes(images.path_of(small()).read_bytes())          # type: ignore[union-attr]
    assert gallery.picture(run.name, "a.png", 40, "result", "webp")


def test_a_page_does_not_wait_long_for_cells_that_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them deep in other people's pictures: a sentence, and nothing of it is remembered."""
    image_id = small()
    monkeypatch.setattr(cells, "BUSY_S", 0.05)
    busy = [cells._free.get() for _ in range(cells.MOST)]
    try:
        with pytest.raises(ImageError, match="Other pictures take long to draw just now"):
            pictures.drawn(image_id, [], 40)
        with pytest.raises(ImageError, match="Other pictures"), drawings.turn((str(cells.data_root()), *pictures._contents(image_id)), 1.0):
            pictures.drawn(image_id, [], 40)                           # somebody else's turn at the same picture
    finally:
        for cell_ in busy:
            cells._free.put(cell_)
    assert pictures.drawn(image_id, [], 40)


def test_the_app_decodes_nothing_itself() -> None:
    """From source: outside of workers and cells nobody asks for a picture's pixels."""
    root = Path(cells.__file__).parent
    asking = {p.name for p in root.glob("*.py") for word in ("images.load", "images.decode", "images.pixels", "Image.open", "coco.read(")
              if word in p.read_text()}
    assert not asking
