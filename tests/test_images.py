"""Pictures of every accepted kind become upright RGB; the store keeps one content once; folders and inboxes are read in order."""

import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data import decoding, files, images
from backend.errors import ImageError, InputError, NotFoundError


@pytest.fixture(autouse=True)
def image_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def encoded(image: Image.Image, form: str, **more: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def corner(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Black with a white left half: which way up is visible."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, :size[0] // 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", images.FORMATS)
def test_every_format_is_read_and_kept(form: str) -> None:
    data = encoded(corner(), form)
    image = images.decode(data, "any name")
    assert (image.mode, image.size, image.format, image.info) == ("RGB", (40, 20), form, {"changed": ""})
    assert image.getpixel((2, 2))[0] > 240 and image.getpixel((37, 2))[0] < 15
    path = images.keep(data, images.sha256(data), form)
    assert path.read_bytes() == data and path == images.path_of(images.sha256(data))
    assert np.array_equal(images.load(images.sha256(data)), image)


def test_content_decides_not_the_name() -> None:
    assert images.decode(encoded(corner(), "PNG"), "photo.jpg").format == "PNG"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_palette_and_alpha_become_rgb(mode: str) -> None:
    image = images.decode(encoded(corner().convert(mode), "PNG"), "a.png")
    assert image.mode == "RGB" and image.getpixel((2, 2)) == (255, 255, 255) and image.getpixel((37, 2)) == (0, 0, 0)


def test_transparent_parts_turn_white() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    read = images.decode(encoded(image, "PNG"), "a.png")
    assert read.getpixel((5, 5)) == (255, 255, 255) and read.getpixel((15, 5)) == (255, 0, 0)
    palette = image.quantize(4)
    assert images.decode(encoded(palette, "PNG"), "a.png").getpixel((5, 5)) == (255, 255, 255)


def test_cmyk_is_converted() -> None:
    image = images.decode(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"), "a.jpg")
    red, green, blue = image.getpixel((10, 10))
    assert red > 200 and green < 60 and blue < 60 and image.info["changed"] == "converted from CMYK"


@pytest.mark.parametrize(("brightest", "shown_at_half"), [(255, 127), (1000, 125), (4095, 127), (60_000, 117)])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_the_real_depth(form: str, brightest: int, shown_at_half: int) -> None:
    """Half of the brightest value, at the smallest camera depth that holds it: 8, 10, 12, 16 bits."""
    pixels = np.full((20, 20), brightest // 2, np.uint16)
    pixels[0, 0] = brightest
    image = images.decode(encoded(Image.fromarray(pixels), form), "a")
    assert abs(image.getpixel((10, 10))[0] - shown_at_half) <= 1 and image.info["changed"] == "scaled to 8 bits"


def test_floating_point_tiff_is_scaled() -> None:
    pixels = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    pixels[3, 3] = np.nan
    image = np.asarray(images.decode(encoded(Image.fromarray(pixels), "TIFF"), "a.tif"))
    assert image.min() == 0 and image.max() == 255 and image[3, 3, 0] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_turned_pictures_come_upright(form: str, orientation: int) -> None:
    """Encoded as a camera held that way would, the picture always comes back with its left half white."""
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
    stored = corner() if orientation == 1 else corner().transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = images.decode(encoded(stored, form, exif=exif), "a")
    assert image.size == (40, 20) and image.getpixel((2, 10))[0] > 200 and image.getpixel((37, 10))[0] < 60


def test_damaged_exif_does_not_refuse_the_picture() -> None:
    assert images.decode(encoded(corner(), "JPEG", exif=b"Exif\0\0garbage"), "a.jpg").size == (40, 20)


def test_a_jpeg_by_opencv_is_the_same_to_the_pixel_and_a_damaged_one_is_refused_as_ever() -> None:
    import cv2  # noqa: F401    from here on this process has it

    rng, made, turned = np.random.default_rng(0), list[bytes](), Image.Exif()
    turned[0x0112] = 6
    smooth = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((211, 157), Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (157, 211, 3), np.uint8))
    for image in (smooth, noise, smooth.convert("L"), smooth.convert("CMYK")):
        for how in (*(dict(subsampling=k) for k in range(3)), dict(progressive=True), dict(quality=30), dict(exif=turned)):
            out = BytesIO()
            image.save(out, "JPEG", **how)
            made.append(out.getvalue())
    for data in made:
        found, form = images.pixels(data, "a.jpg")
        assert form == "JPEG" and found.dtype == np.uint8 and np.array_equal(found, np.asarray(images.decode(data, "a.jpg")))

    def said(data: bytes) -> list[str]:
        """What each door answers to damaged bytes; '' where it takes them."""
        answers = []
        for door in (images.pixels, images.decode):
            try:
                door(data, "a.jpg")
                answers.append("")
            except ImageError as error:
                answers.append(str(error))
        return answers

    for data in (made[0][:900], made[0][:900] + bytes(50), b"\xff\xd8\xff\xd9", made[0][:400]):
        assert said(data) == ["The picture is damaged or cut short."] * 2
    one, other = said(made[6][:9000] + b"\xff\xd9")           # cut, and ended by hand
    assert one == other


def test_capture_time_comes_from_the_camera() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:03:04 05:06:07"
    assert images.captured_at(encoded(corner(), "JPEG", exif=exif)) == datetime(2026, 3, 4, 5, 6, 7)
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    assert images.captured_at(encoded(corner(), "JPEG", exif=exif)) is None
    assert images.captured_at(encoded(corner(), "PNG")) is None and images.captured_at(b"no picture") is None


def test_one_content_is_kept_once_and_a_half_written_file_is_replaced(image_root: Path) -> None:
    data = encoded(corner(), "PNG")
    path = images.keep(data, images.sha256(data), "PNG")
    first = path.stat().st_ino
    assert images.keep(data, images.sha256(data), "PNG").stat().st_ino == first
    path.write_bytes(b"")
    assert images.keep(data, images.sha256(data), "PNG").read_bytes() == data
    assert [p for p in image_root.rglob("*") if p.is_file()] == [path]


def test_ids_of_others_reach_no_file() -> None:
    for image_id in ("../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64):
        assert images.path_of(image_id) is None
    with pytest.raises(NotFoundError, match="not kept"):
        images.load("../secret")


def test_a_folder_is_read_in_order_without_what_lies_beside(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "b").mkdir(parents=True)
    for name in ("b/2.png", "b/10.PNG", "a.png", "b/hidden.txt"):       # a picture is a picture, whatever it is called
        (root / name).write_bytes(encoded(corner(), "PNG"))
    for name in ("notes.txt", "b/2.xml", "Thumbs.db", ".DS_Store", "b/.gitignore", "._a.png", "labels.csv"):
        (root / name).write_bytes(b"anything")
    (root / "broken.jpg").write_bytes(b"not a picture")
    (root / "unknown").write_bytes(b"not a picture either")
    found = list(images.read(root))
    assert [f.name for f in found] == ["a.png", "broken.jpg", "unknown", "b/10.PNG", "b/2.png", "b/hidden.txt"]
    assert all(isinstance(f, images.Source) for f in found)
    for broken in found[1:3]:
        with pytest.raises(ImageError, match="not a picture"):
            images.decode(broken.data, broken.name)
    assert images.count(root) == 5                                      # by name alone, so without hidden.txt


def test_an_inbox_gives_back_the_names_and_opens_its_zips(tmp_path: Path) -> None:
    (tmp_path / "000000.bin").write_bytes(encoded(corner(), "PNG"))
    with zipfile.ZipFile(tmp_path / "000001.bin", "w") as z:
        z.writestr("x/1.bmp", encoded(corner(), "BMP"))
        z.writestr("x/readme.txt", "passed over")
    (tmp_path / "000002.bin").write_bytes(b"chosen by a person, so never passed over")
    names = {"000000.bin": "dir/scratch 1.png", "000001.bin": "lot 7.zip", "000002.bin": "n.txt"}
    (tmp_path / "inbox.json").write_text(json.dumps([dict(file=f, name=n) for f, n in names.items()]))
    assert [f.name for f in images.read(tmp_path)] == ["dir/scratch 1.png", "lot 7.zip/x/1.bmp", "n.txt"]
    assert images.count(tmp_path) == 3


def test_a_single_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(corner(), "PNG"))
    assert [f.name for f in images.read(tmp_path / "a.png")] == ["a.png"]
    with pytest.raises(InputError, match="There is no file or folder"):
        list(images.read(tmp_path / "none"))


def test_bmp_needs_more_than_two_letters() -> None:
    assert files.kind(b"BMW has 4 wheels and an engine") == ""
    assert files.kind(encoded(corner(), "BMP")[:32]) == "BMP"


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads with 100 megapixels each would take 24 GB."""
    data, at_once, most = BytesIO(), 0, 0
    Image.new("RGBA", (20, 20)).save(data, "PNG")
    convert = decoding._to_rgb

    def watched(image: Image.Image) -> Image.Image:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        return convert(image)

    monkeypatch.setattr(decoding, "_to_rgb", watched)
    monkeypatch.setattr(decoding, "LARGE", 100)
    with ThreadPoolExecutor(4) as pool:
        assert {i.size for i in pool.map(lambda _: images.decode(data.getvalue(), "a.png"), range(8))} == {(20, 20)}
    assert most == 1
