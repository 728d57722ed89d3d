"""Every kind of bad input gets its own plain sentence, the rest of the batch goes on, and nothing escapes its folder."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend import rundir
from backend.config import Import
from backend.data import files, images, importer
from backend.errors import ImageError, InputError


def encoded(image: Image.Image, form: str = "PNG", **more: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def quiet(*, step: int, total: int, message: str = "") -> None:
    """A report that nobody reads, as strict about its arguments as the worker's."""
    assert 0 <= step <= total


def noise(seed: int = 0, side: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8))


def huge_png(width: int, height: int) -> bytes:
    """A few bytes that claim these sides: whoever decodes before looking pays for them."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def animated(form: str) -> bytes:
    return encoded(noise(1), form, save_all=True, append_images=[noise(2), noise(3)])


BAD: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "The file is empty."),
    "text.png": (b"hello, I am no picture", "It is not a picture, though its name ends in .png."),
    "noname": (b"\x00\x01\x02\x03", "It is not a picture."),
    "gif.png": (encoded(noise(), "GIF"), "It is a GIF file. Pictures can be PNG, JPEG, BMP, TIFF or WebP."),
    "report.jpg": (b"%PDF-1.7 and so on", "It is a PDF file."),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "It is a HEIC, AVIF or video file."),
    "wide.png": (huge_png(60_000, 10), "The picture is too large: 60,000 × 10 pixels."),
    "many.png": (huge_png(12_000, 12_000), "The picture is too large"),
    "bomb.png": (huge_png(200_000, 200_000), "The picture is too large"),
    "animated.png": (animated("PNG"), "It holds 3 frames"),
    "animated.webp": (animated("WEBP"), "It holds 3 frames"),
    "pages.tif": (animated("TIFF"), "It holds 3 pages"),
    "lab.tif": (encoded(Image.new("LAB", (20, 20)), "TIFF"), "Its colours (LAB) cannot be read"),
    **{f"cut.{form.lower()}": (encoded(noise(4), form)[:-400 if form == "JPEG" else -2000], "The picture is damaged or cut short.")
       for form in images.FORMATS},
    "header only.jpg": (encoded(noise(), "JPEG")[:30], "The picture is damaged or cut short."),
    "scrambled.png": (encoded(noise())[:60] + np.random.default_rng(9).bytes(500), "The picture is damaged or cut short."),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_picture_has_its_sentence(name: str) -> None:
    data, sentence = BAD[name]
    with pytest.raises(ImageError) as caught:
        images.decode(data, name)
    assert str(caught.value).startswith(sentence) and str(caught.value).endswith(".")


@pytest.mark.parametrize("form", images.FORMATS)
def test_any_cut_and_any_flipped_byte_is_a_picture_or_a_sentence(form: str) -> None:
    """No damage may escape as another exception. Cut pictures may decode only where nothing but a trailer was lost."""
    data, rng = encoded(noise(5, 24), form), np.random.default_rng(0)
    for size in [*range(0, 120, 3), *rng.integers(0, len(data), 60)]:
        with pytest.raises(ImageError):
            if images.decode(data[:size], "a") and size > len(data) - 30:
                raise ImageError("only the trailer is gone")
    for at in rng.integers(0, len(data), 300):
        try:
            images.decode(data[:at] + bytes([data[at] ^ rng.integers(1, 256)]) + data[at + 1:], "a")
        except ImageError as error:
            assert str(error).endswith(".")


def test_a_file_over_the_byte_limit_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "big.png", "wb") as f:
        f.truncate(files.MAX_BYTES + 1)                 # sparse: takes no room
    (tmp_path / "good.png").write_bytes(encoded(noise()))
    big, good = images.read(tmp_path)
    assert isinstance(big, images.Refusal) and big.reason == "It is larger than 200 MB." and isinstance(good, images.Source)
    with pytest.raises(ImageError, match="larger than 200 MB"):
        images.decode(bytes(files.MAX_BYTES + 1), "a.png")


# ---- zips

def zipped(path: Path, *items: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, data in (*items, ("good.png", encoded(noise()))):
            z.writestr(name, data)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def renamed(path: Path, old: bytes, new: bytes) -> Path:
    """Zip writers clean names; attackers do not."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


ZIPS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "up": (lambda p: zipped(p, ("../../up.png", encoded(noise()))), "../../up.png", "points to a place outside the zip ('..')"),
    "up, windows": (lambda p: zipped(p, ("a\\..\\..\\up.png", encoded(noise()))), "a/../../up.png", "outside the zip ('..')"),
    "absolute": (lambda p: renamed(zipped(p, ("Xetc.png", encoded(noise()))), b"Xetc.png", b"/etc.png"), "/etc.png", "(an absolute path)"),
    "drive": (lambda p: zipped(p, ("C:\\up.png", encoded(noise()))), "C:/up.png", "(an absolute path)"),
    "link": (lambda p: zipped(p, (special("link.png", stat.S_IFLNK | 0o777), b"/etc/passwd")), "link.png", "It is a link or a device"),
    "device": (lambda p: zipped(p, (special("dev.png", stat.S_IFCHR | 0o666), b"")), "dev.png", "It is a link or a device"),
    "nested": (lambda p: zipped(p, ("inner.zip", b"PK\x05\x06" + bytes(18))), "inner.zip", "It is an archive inside a zip."),
    "nested tar": (lambda p: zipped(p, ("inner.tgz", b"anything")), "inner.tgz", "It is an archive inside a zip."),
    "bomb": (lambda p: zipped(p, ("bomb.bmp", bytes(files.RATIO_FROM + 1))), "bomb.bmp", "more than 200 times its packed size"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_each_bad_entry_is_refused_and_the_good_one_read(case: str, tmp_path: Path) -> None:
    make, name, reason = ZIPS[case]
    before = sorted(tmp_path.parent.iterdir())
    found = {f.name: f for f in images.read(make(tmp_path / "batch.zip"))}
    assert isinstance(found["good.png"], images.Source)
    assert isinstance(found[name], images.Refusal) and reason in found[name].reason
    assert sorted(tmp_path.parent.iterdir()) == before and list(tmp_path.iterdir()) == [tmp_path / "batch.zip"]


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    """The encryption bit set in both records of the entry, as zip programs set it."""
    path = zipped(tmp_path / "a.zip", ("secret.png", encoded(noise(1))))
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    path.write_bytes(data)
    good, secret = sorted(images.read(path), key=lambda f: f.name)
    assert isinstance(good, images.Source) and isinstance(secret, images.Refusal) and secret.reason.startswith("It is encrypted.")


def test_a_nested_archive_is_known_by_its_content_too(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip").read_bytes()
    found = {f.name: f for f in images.read(zipped(tmp_path / "outer.zip", ("picture.png", inner)))}
    assert isinstance(found["picture.png"], images.Source)              # its bytes are harmless unread ...
    with pytest.raises(ImageError, match="It is a ZIP file"):
        images.decode(found["picture.png"].data, "picture.png")         # ... and are never opened as an archive


def test_a_damaged_entry_is_refused_and_the_rest_read(tmp_path: Path) -> None:
    body = encoded(noise(7))
    path = zipped(tmp_path / "a.zip", ("bad.png", body), compression=zipfile.ZIP_STORED)
    renamed(path, body[500:510], bytes(10))
    bad, good = images.read(path)
    assert isinstance(bad, images.Refusal) and "damaged" in bad.reason and isinstance(good, images.Source)


def test_zips_too_many_too_large_empty_or_no_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", ("b.png", b"1"), ("c.png", b"2"))
    monkeypatch.setattr(files, "MAX_ENTRIES", 2)
    assert [f.reason for f in images.read(path)] == ["It holds more than 2 files."]
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    monkeypatch.setattr(files, "MAX_TOTAL", 100)
    assert ["It would unpack to more than" in f.reason for f in images.read(path)] == [True]
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    assert [f.reason for f in images.read(tmp_path / "none.zip")] == ["It is an empty zip file."]
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-40])
    assert [f.reason for f in images.read(tmp_path / "cut.zip")] == ["It is a zip file, but damaged or cut short."]


def test_a_lying_size_never_yields_more_than_it_declares(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", ("lie.bmp", bytes(300_000)))
    size = struct.pack("<I", 300_000)
    path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", 1000)))
    found = {f.name: f for f in images.read(path)}
    assert isinstance(found["lie.bmp"], images.Refusal) and isinstance(found["good.png"], images.Source)


# ---- folders

def test_links_and_pipes_in_a_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.png").write_bytes(encoded(noise()))
    (inside / "good.png").write_bytes(encoded(noise()))
    (inside / "same.png").symlink_to(inside / "good.png")
    (inside / "away.png").symlink_to(outside / "secret.png")
    (inside / "dir").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "broken.png").symlink_to(inside / "nothing")
    os.mkfifo(inside / "pipe.png")                      # to open one would wait for ever
    (inside / "a.tar").write_bytes(b"")
    found = {f.name: f for f in images.read(inside)}
    assert {n for n, f in found.items() if isinstance(f, images.Source)} == {"good.png", "same.png"}
    reasons = {n: f.reason for n, f in found.items() if isinstance(f, images.Refusal)}
    assert "outside the folder" in reasons["away.png"] and "outside the folder" in reasons["dir"]
    assert "link to a folder" in reasons["loop"] and "regular file" in reasons["broken.png"] and "regular file" in reasons["pipe.png"]
    assert "archive inside a folder" in reasons["a.tar"]


@given(st.text(st.characters(exclude_categories=()), max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_name_can_be_shown_on_one_line(name: str) -> None:
    shown = files.printable(name)
    assert shown.isprintable() and len(shown) <= 250
    shown.encode()                                      # no lone surrogates: Parquet and browsers take UTF-8


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


@given(st.lists(NAMES, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_names_in_a_zip_are_read_or_refused_and_none_is_lost(names: list[str]) -> None:
    names = [f"{n}.png" for n in dict.fromkeys(names)]
    out, picture = BytesIO(), encoded(noise(0, 12))
    with zipfile.ZipFile(out, "w") as z:
        for name in names:
            z.writestr(zipfile.ZipInfo(name), picture)
    with zipfile.ZipFile(BytesIO(out.getvalue())) as z:
        found = [files.source(e) if isinstance(e, files.Entry) else e for e in files._zip(z, "batch.zip", "")]
    assert len(found) == len(names) and all(f is not None and f.name.isprintable() for f in found)
    assert all(f.data == picture for f in found if isinstance(f, images.Source))


# ---- a whole import

def test_an_import_goes_on_past_everything_bad_and_writes_only_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    source = tmp_path / "in"
    source.mkdir()
    for name, (data, _) in BAD.items():
        (source / name).write_bytes(data)
    html = "<script>alert(1)<'script>.png"
    odd = [html, "new\nline.png", "ünï ☃ 试.png", "‮gnp.exe.png", "=1+1.png", "a" * 200 + ".png", "tiny.png"]
    for i, name in enumerate(odd):
        (source / name).write_bytes(encoded(noise(10 + i, 9 if name == "tiny.png" else 60)))
    (source / "copy of ünï.png").write_bytes((source / odd[2]).read_bytes())
    outside = {p for p in tmp_path.rglob("*")}

    config = Import(path=str(source), name="hostile")
    run = rundir.create("import", config.to_json())
    head = importer.run(config, run, quiet)

    reasons = {r["file_name"]: r["reason"] for r in rundir.rows(run, "refused").to_pylist()}
    assert set(reasons) == {*BAD, "tiny.png"} and head["refused"] == len(reasons)
    assert all(reasons[name].startswith(sentence) for name, (_, sentence) in BAD.items())
    assert "at least 10 a side" in reasons["tiny.png"]
    kept = set(rundir.rows(run, "snapshot_images")["file_name"].to_pylist())
    assert {html, "new\\u000aline.png", "\\u202egnp.exe.png", "=1+1.png"} < kept and len(kept) == 6
    assert any(n.startswith("Same content twice, kept once: 1 (copy of ünï.png = ünï") for n in head["notes"])
    written = {p for p in tmp_path.rglob("*")} - outside
    assert all(p.is_relative_to(tmp_path / "data") for p in written)
    assert {p.parent.parent.name for p in written if p.suffix == ".png"} == {"images"}


def test_an_import_of_nothing_usable_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no")
    config = Import(path=str(tmp_path / "in"), name="x")
    with pytest.raises(InputError, match="None of the 1 pictures can be used. a.png: It is not a picture"):
        importer.run(config, rundir.create("import", config.to_json()), quiet)
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and nothing more")
    config = Import(path=str(tmp_path / "cut.zip"), name="x")
    with pytest.raises(InputError, match="There is no picture in it; cut.zip was refused: It is a zip file, but damaged or cut short."):
        importer.run(config, rundir.create("import", config.to_json()), quiet)
