"""Bad uploads by number: pictures, zips, annotations, networks and settings as chance and malice make them. The same seed, the same bytes.

    case(kind, n, seed, folder) -> Case     writes what is uploaded below `folder` and says what was done to it

Shared by tests/test_fuzz.py and tests/benchmarks/fuzz.py. Nothing here checks anything.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Rng = np.random.Generator
NAMES = ("../../up.png", "/etc/passwd.png", "C:\\up.png", "..\\..\\up.png", "con.png", "a" * 300 + ".png", "\u202egnp.exe.png",
         "new\nline.png", "tab\there.png", "nul\0l.png", "<img src=x onerror=alert(1)>.png", "=1+1.png", " .png", ".png", "..", "",
         "ünï ☃ 试.png", "e\u0301.png", "\ud800.png", "🦆.png", "a.png.exe", "a.exe", "train/good/a.png", "x'\"`;--.png",
         "%2e%2e%2fup.png", "~root.png", "$(id).png", "-rf.png", "ground_truth/a/b_mask.png", "images/train/a.png",
         "synthetic/head.json", "__MACOSX/._a.png", "\u200b.png", "A" * 5000)


@dataclass(frozen=True)
class Case:
    kind: str
    done: str                          # what was done to it
    files: tuple[tuple[str, bytes], ...] = ()          # name and content, as a browser sends them
    folder: Path | None = None         # of a network, or of a dataset named by path
    config: Any = None                 # settings, as JSON has them
    recipe: str = ""


def case(kind: str, n: int, seed: int, folder: Path) -> Case:
    rng = np.random.default_rng([seed, n, sum(map(ord, kind))])
    makers = {"images": IMAGES, "zips": ZIPS, "annotations": ANNOTATIONS, "onnx": NETWORKS, "configs": CONFIGS}[kind]
    done = list(makers)[n % len(makers)]                 # each in turn
    return makers[done](rng, done, folder)


def _pick(rng: Rng, some: Any) -> Any:
    return some[int(rng.integers(len(some)))]


# ---- pictures

def encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def picture(rng: Rng, side: int = 40) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8))


def _any(rng: Rng) -> bytes:
    form = _pick(rng, ("PNG", "JPEG", "BMP", "TIFF", "WEBP"))
    mode = _pick(rng, ("RGB", "L", "P", "1") if form in ("PNG", "TIFF", "BMP") else ("RGB",))
    return encoded(picture(rng).convert(mode), form)


def flipped(rng: Rng, data: bytes, most: int = 30) -> bytes:
    some = bytearray(data)
    for at in rng.integers(0, len(some), int(rng.integers(1, most))):
        some[at] ^= 1 << int(rng.integers(8))
    return bytes(some)


def cut(rng: Rng, data: bytes) -> bytes:
    return data[:int(rng.integers(0, len(data)))]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes, *between: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that claims these sides, whatever it holds."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(between) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _flat(rng: Rng) -> bytes:
    """Small on disk and as large as may be: what it costs is to be bounded, not refused."""
    width, height = _pick(rng, ((9_990, 10_000), (25_000, 3_990), (4_000, 24_990)))
    return png(width, height, zlib.compress(bytes((width + 1) * height), 1))


def _over(rng: Rng) -> bytes:
    width, height = (int(2 ** rng.uniform(0, 31.9)) for _ in range(2))
    return png(max(width, 100_001), max(height, 1_001), zlib.compress(bytes(1000)))


def _header(rng: Rng) -> bytes:
    """Four bytes somewhere in the first 60 are another number: sides, depths, offsets, counts."""
    some = bytearray(_any(rng))
    at = int(rng.integers(4, min(60, len(some) - 4)))
    some[at:at + 4] = struct.pack("<I", int(_pick(rng, (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, int(rng.integers(2**32))))))
    return bytes(some)


def _tiff(rng: Rng) -> bytes:
    """A TIFF of entries that say anything, its list of directories a ring sometimes."""
    kinds, entries = (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324, 325, 330, 34665), []
    for tag in sorted(rng.choice(kinds, int(rng.integers(3, 12)), replace=False)):
        number = int(_pick(rng, (0, 1, 8, 40, 65_535, 2**31, 2**32 - 1)))
        entries.append(struct.pack("<HHII", int(tag), int(rng.integers(0, 14)), int(_pick(rng, (1, 1, 1, 2**20, 2**32 - 1))), number))
    following = int(_pick(rng, (0, 8, 2**32 - 1)))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", following) + rng.bytes(200)


def _polyglot(rng: Rng) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("../../evil.png", _any(rng))
    body = _any(rng)
    return _pick(rng, (body + out.getvalue(), out.getvalue() + body, body + b"<script>alert(1)</script>", b"%PDF-1.7\n" + body,
                       b"GIF89a/*" + body + b"*/=1;alert(1)", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
                       b"<?php system($_GET['c']);?>" + body, b"MZ" + body, b"\x7fELF" + body))


def _exif(rng: Rng) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 12))
    exif[0x9003] = _pick(rng, ("2026:11:29 06:00:00", "0000:00:00 00:00:00", "x" * 4000, "9999:99:99 99:99:99"))
    data = encoded(picture(rng), "JPEG", exif=exif)
    at = data.find(b"Exif")
    return data if rng.random() < 0.4 else data[:at + 8] + flipped(rng, data[at + 8:at + 60], 12) + data[at + 60:]


def _frames(rng: Rng) -> bytes:
    form = _pick(rng, ("PNG", "WEBP", "TIFF", "GIF"))
    return encoded(picture(rng), form, save_all=True, append_images=[picture(rng) for _ in range(int(rng.integers(1, 20)))])


def _deep(rng: Rng) -> bytes:
    values = (rng.random((40, 40)) * _pick(rng, (1, 4095, 65_535))).astype(_pick(rng, (np.uint16, np.int32, np.float32)))
    if values.dtype == np.float32:
        values[0, :3] = np.nan, np.inf, -np.inf
    return encoded(Image.fromarray(values), "TIFF" if values.dtype != np.uint16 else _pick(rng, ("PNG", "TIFF")))


def _text_chunk(rng: Rng) -> bytes:
    """Megabytes of words or of a colour profile, packed: who reads them pays."""
    packed = zlib.compress(bytes(int(_pick(rng, (10**5, 10**7, 6 * 10**7)))), 9)
    kind, head = _pick(rng, ((b"zTXt", b"words\0\0"), (b"iCCP", b"profile\0\0"), (b"iTXt", b"words\0\1\0\0\0")))
    return png(40, 40, zlib.compress(bytes(41 * 40)), _chunk(kind, head + packed))


def _one(make: Callable[[Rng], bytes]) -> Callable[[Rng, str, Path], Case]:
    def upload(rng: Rng, done: str, folder: Path) -> Case:
        name = f"bad{_pick(rng, ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.webp', '.PNG', '', '.gif', '.txt', '.zip'))}"
        return Case("images", done, ((name, make(rng)),))
    return upload


def _named(rng: Rng, done: str, folder: Path) -> Case:
    return Case("images", done, ((_pick(rng, NAMES), _any(rng)),))


IMAGES: dict[str, Callable[[Rng, str, Path], Case]] = {
    "cut short": _one(lambda rng: cut(rng, _any(rng))),
    "bits flipped": _one(lambda rng: flipped(rng, _any(rng))),
    "bytes appended": _one(lambda rng: _any(rng) + rng.bytes(int(rng.integers(1, 3000)))),
    "first bytes, then noise": _one(lambda rng: _any(rng)[:int(rng.integers(4, 40))] + rng.bytes(600)),
    "noise": _one(lambda rng: rng.bytes(int(rng.integers(0, 2000)))),
    "empty": _one(lambda rng: b"" if rng.random() < 0.5 else bytes(int(rng.integers(1, 5000)))),
    "another number in its header": _one(_header),
    "sides beyond every limit": _one(_over),
    "100 megapixels in 100 KB": _one(_flat),
    "several frames": _one(_frames),
    "CMYK": _one(lambda rng: encoded(picture(rng).convert("CMYK"), _pick(rng, ("JPEG", "TIFF")))),
    "16 bits and more": _one(_deep),
    "EXIF that turns or lies": _one(_exif),
    "entries of a TIFF that say anything": _one(_tiff),
    "two formats in one": _one(_polyglot),
    "megabytes of text inside": _one(_text_chunk),
    "another format's name": _one(lambda rng: encoded(picture(rng), _pick(rng, ("GIF", "PPM", "ICO", "PCX", "TGA", "SGI")))),
    "a pixel or two": _one(lambda rng: encoded(picture(rng, int(rng.integers(1, 9))), _pick(rng, ("PNG", "JPEG", "BMP")))),
    "a name that is no name": _named}


# ---- zips

def zipped(items: list[tuple[Any, bytes]], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", packed) as z:
        for name, data in items:
            z.writestr(name, data)
    return out.getvalue()


def _info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename, info.create_system, info.external_attr, info.compress_type = name, 3, mode << 16, zipfile.ZIP_DEFLATED
    return info


def _zip(make: Callable[[Rng], bytes]) -> Callable[[Rng, str, Path], Case]:
    def upload(rng: Rng, done: str, folder: Path) -> Case:
        return Case("zips", done, ((_pick(rng, ("batch.zip", "batch.png", "<b>.zip")), make(rng)),))
    return upload


def _bad_names(rng: Rng) -> bytes:
    some = [n.encode("utf-8", "replace").decode() for n in rng.choice(NAMES[:-1], 4)]
    return zipped([(_info(n or "none"), _any(rng)) for n in some])


def _special(rng: Rng) -> bytes:
    """Links, devices, pipes and sockets, with where they lead as their content."""
    modes = (0o120777, 0o020666, 0o060666, 0o010666, 0o140666)
    return zipped([(_info(f"{i}.png", int(_pick(rng, modes))), b"/etc/passwd") for i in range(3)] + [("good.png", _any(rng))])


def _nested(rng: Rng) -> bytes:
    inner = zipped([("a.png", _any(rng))])
    for _ in range(int(rng.integers(1, 12))):
        inner = zipped([(_pick(rng, ("a.zip", "a.png", "a.tar", "a.7z")), inner)])
    return inner


def _bomb(rng: Rng) -> bytes:
    size = int(_pick(rng, (11 * 10**6, 30 * 10**6, 150 * 10**6)))
    start = _pick(rng, (b"", b"BM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    ends = ('.png', '.bmp', '.json', '.xml', '.txt')
    return zipped([(f"{i}{_pick(rng, ends)}", start + bytes(size)) for i in range(int(rng.integers(1, 3)))])


def _many(rng: Rng) -> bytes:
    name = _pick(rng, ("{}.png", "same.png", "{}.txt"))
    return zipped([(_info(name.format(i)), b"") for i in range(3000)], zipfile.ZIP_STORED)


def _encrypted(rng: Rng) -> bytes:
    some = bytearray(zipped([("secret.png", _any(rng)), ("good.png", _any(rng))]))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        some[some.index(magic) + offset] |= 1
    return bytes(some)


def _lying(rng: Rng) -> bytes:
    """Other numbers in the directory: sizes, methods, offsets, counts."""
    some = bytearray(zipped([("a.png", _any(rng)), ("b.png", _any(rng))], _pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    at, length = some.index(b"PK\x01\x02"), len(some)
    for _ in range(int(rng.integers(1, 4))):
        here = int(rng.integers(at + 4, length - 4))
        some[here:here + 4] = struct.pack("<I", int(_pick(rng, (0, 1, 99, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, int(rng.integers(2**32))))))
    return bytes(some)


def _large_directory(rng: Rng) -> bytes:
    """A directory that claims, or is, far larger than any that is needed."""
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.png"
    directory = entry * int(_pick(rng, (10, 150_000)))
    count = min(len(directory) // len(entry), 0xFFFF)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, int(_pick(rng, (len(directory), 0xFFFFFFFE))), 0, 0)
    return b"PK\x03\x04" + directory + end


def _collisions(rng: Rng) -> bytes:
    body = _any(rng)
    return zipped([(_info(n), body if rng.random() < 0.5 else _any(rng))
                   for n in ("a.png", "A.PNG", "a.png", "a.PNG", "./a.png", "a/../a.png", "a.png/", "\u00e4.png", "a\u0308.png")])


ZIPS: dict[str, Callable[[Rng, str, Path], Case]] = {
    "names that lead elsewhere": _zip(_bad_names),
    "links and devices": _zip(_special),
    "archives in archives": _zip(_nested),
    "bombs": _zip(_bomb),
    "thousands of nothing": _zip(_many),
    "encrypted": _zip(_encrypted),
    "numbers that lie": _zip(_lying),
    "a directory beyond measure": _zip(_large_directory),
    "names that collide": _zip(_collisions),
    "cut short": _zip(lambda rng: b"PK\x03\x04" + cut(rng, zipped([("a.png", _any(rng)), ("b.png", _any(rng))]))[4:]),
    "bits flipped": _zip(lambda rng: flipped(rng, zipped([(f"{i}.png", _any(rng)) for i in range(4)]))),
    "bad pictures inside": _zip(lambda rng: zipped([(f"{i}.png", flipped(rng, _any(rng))) for i in range(5)]))}


# ---- annotations

WRONG: tuple[Any, ...] = (float("nan"), float("inf"), -1, 0, 1e308, 10**400, 2**63, "x", "", None, True, [], {}, [[]], "\ud800", "NaN",
                          -1e-320, {"a": {"b": []}}, "A" * 2000, [1, 2], "<img src=x onerror=alert(1)>")


def mutated(rng: Rng, value: Any, rate: float = 0.08) -> Any:
    """The same JSON with some of its values wrong, gone or twice."""
    if rng.random() < rate:
        return _pick(rng, WRONG)
    if isinstance(value, dict):
        kept = {k: mutated(rng, v, rate) for k, v in value.items() if rng.random() > rate / 4}
        return kept | ({_pick(rng, ("zzz", "", "__class__", "\n")): 1} if rng.random() < rate else {})
    return [mutated(rng, v, rate) for v in value for _ in range(2 if rng.random() < rate / 4 else 1)] if isinstance(value, list) else value


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _three(rng: Rng) -> list[tuple[str, bytes]]:
    return [(f"p{i}.png", encoded(picture(rng, 24))) for i in range(3)]


def _marked(make: Callable[[Rng], list[tuple[str, bytes]]]) -> Callable[[Rng, str, Path], Case]:
    def upload(rng: Rng, done: str, folder: Path) -> Case:
        return Case("annotations", done, (("labelled.zip", zipped(_three(rng) + [(_info(n), d) for n, d in make(rng)])),))
    return upload


def _voc(body: str, head: str = "", encoding: str = "utf-8") -> bytes:
    text = f'<?xml version="1.0" encoding="{encoding}"?>{head}<annotation><filename>p0.png</filename>{body}</annotation>'
    return text.encode(encoding)


def _box(name: str = "pits", corners: tuple[Any, ...] = (1, 1, 9, 9)) -> str:
    inside = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><bndbox>{inside}</bndbox></object>"


def _laughs(rng: Rng) -> bytes:
    """A few lines that become gigabytes, in encodings that hide the word."""
    entities = '<!ENTITY a "ha">' + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghij", "bcdefghijk", strict=True))
    return _voc(_box("&k;"), f"<!DOCTYPE x [{entities}]>", _pick(rng, ("utf-8", "utf-16", "utf-16-le", "ascii")))


def _external(rng: Rng) -> bytes:
    place = _pick(rng, ("file:///etc/passwd", "http://198.51.100.1/x", "/etc/hostname"))
    head = _pick(rng, (f'<!DOCTYPE x [<!ENTITY e SYSTEM "{place}">]>', f'<!DOCTYPE x SYSTEM "{place}">',
                       f'<!DOCTYPE x [<!ENTITY % e SYSTEM "{place}"> %e;]>'))
    return _voc(_box("&e;" if "<!ENTITY e" in head else "pits"), head, _pick(rng, ("utf-8", "utf-16")))


def _xml(rng: Rng) -> bytes:
    numbers = ("nan", "inf", "-5", "1e400", "", "x", "9" * 400, "0", "12", "&#0;", "٣", "1_0")
    some = "".join(_box(_pick(rng, ("pits", "", " ", "<b/>", "x" * 5000, "&#8238;", "<![CDATA[<img src=x>]]>")),
                        tuple(_pick(rng, numbers) for _ in range(4))) for _ in range(4))
    return _pick(rng, (_voc(some), flipped(rng, _voc(some)), cut(rng, _voc(some)), _voc("<a>" * 30_000 + "</a>" * 30_000),
                       _voc("<object/>"),
                       b"<annotation>" * 50_000, _voc(some, encoding="utf-16"), b'<?xml version="1.0" encoding="x-none"?><annotation/>'))


def _coco(rng: Rng) -> Any:
    return dict(images=[dict(id=i, file_name=f"p{i}.png", width=24, height=24) for i in range(3)], categories=[dict(id=1, name="pits")],
                annotations=[dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0,
                                  segmentation=[[1, 1, 9, 1, 9, 9]] if i else [])
                             for i in range(3)])


def _coco_bytes(rng: Rng) -> bytes:
    whole = _coco(rng)
    return _pick(rng, (as_json(mutated(rng, whole)), as_json(mutated(rng, whole, 0.25)), cut(rng, as_json(whole)),
                       b"[" * 200_000, b'{"images":' * 50_000, as_json(whole)[:-1] + b',"images":7}', flipped(rng, as_json(whole), 8)))


def _yolo(rng: Rng) -> list[tuple[str, bytes]]:
    numbers = ("nan", "inf", "-1", "1e300", "0.5", "0", "1", "x", "9" * 400, "0x1", "1_0", "-0.0", "\u0663")
    lines = [" ".join(_pick(rng, numbers) for _ in range(int(_pick(rng, (0, 1, 4, 5, 5, 5, 6, 7, 9, 5000))))) for _ in range(4)]
    text = _pick(rng, ("\n".join(lines).encode(), rng.bytes(300), b"0 0.5 0.5 0.2 0.2\n" * 2 + lines[0].encode(), b"\xff\xfe0\0 \0"))
    return [("p0.txt", text), ("p1.txt", b"0 0.5 0.5 0.2 0.2"), *([("data.yaml", _yaml(rng))] if rng.random() < 0.5 else [])]


YAML = ("names: {999999999999: a, -1: b}\n", "names: !!python/object/apply:os.system ['id']\n", "names: " + "[" * 3000, "names: 'abc'\n",
        "names: [nan, .inf, ~, {a: b}, [c], 2026-01-01]\ntrain: ../../../../etc\nval: [7, {}]\ntest: /etc/passwd.txt\n",
        "names: [a, a, a, '', ' ', \"\\u202e\", '<img src=x onerror=alert(1)>']\n", "names: {0: &x {0: *x}}\n", "? names\n: 7")


def _yaml(rng: Rng) -> bytes:
    """Class names that are none, or lists of lists of lists."""
    grown = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    bomb = f"a: &a [x,x,x,x,x,x,x,x,x]\n{grown}"
    return str(_pick(rng, (f"{bomb}names: *i\n", f"{bomb}names: {{0: *i}}\n", *YAML))).encode()


def _synthetic(rng: Rng) -> list[tuple[str, bytes]]:
    items = [dict(file=f"p{i}.png", mask="" if i else "m.png", parent="a" * 64, source="x", class_name="pits",
                  boxes=[["pits", 1, 1, 9, 9]]) for i in range(3)]
    items[0]["file"] = _pick(rng, ("p0.png", "../../etc/passwd", "/etc/passwd", "p9.png"))
    return [("head.json", as_json(mutated(rng, dict(name="set", key="k", classes=["pits"], items=items), 0.06))),
            ("m.png", encoded(picture(rng, 24).convert("1")))]


def _masks(rng: Rng) -> list[tuple[str, bytes]]:
    mask = Image.fromarray((rng.random((24, 24)) > 0.7).astype(np.uint8) * 255)
    bad = _pick(rng, (encoded(mask), flipped(rng, encoded(mask)), encoded(mask.resize((7, 300))), b"", encoded(picture(rng)),
                      encoded(mask, "BMP"), encoded(Image.new("1", (24, 24))), encoded(Image.new("1", (24, 24), 1)),
                      cut(rng, encoded(mask))))
    return _pick(rng, ([("p0_mask.png", bad), ("p1_mask.png", encoded(mask))],
                       [("train/good/a.png", encoded(picture(rng))), ("test/pits/b.png", encoded(picture(rng))),
                        ("ground_truth/pits/b_mask.png", bad)]))


ANNOTATIONS: dict[str, Callable[[Rng, str, Path], Case]] = {
    "XML that laughs": _marked(lambda rng: [("p0.xml", _laughs(rng)), ("p1.xml", _voc(_box()))]),
    "XML that reads other files": _marked(lambda rng: [("p0.xml", _external(rng)), ("p1.xml", _voc(_box()))]),
    "XML that is wrong": _marked(lambda rng: [("p0.xml", _xml(rng)), ("p1.xml", _voc(_box()))]),
    "COCO with wrong values": _marked(lambda rng: [("instances.json", _coco_bytes(rng))]),
    "YOLO lines and data.yaml": _marked(_yolo),
    "a synthetic set that lies": _marked(_synthetic),
    "masks that are none": _marked(_masks)}


# ---- networks

CLASSES = ["crack", "pits"]
SIDE = 32


@lru_cache(maxsize=1)
def network() -> bytes:
    """The smallest ONNX that answers as a detector of two classes: one convolution, (N, 3, S, S) -> (N, 6, S/8 · S/8)."""
    return _onnx(lambda model: None)


def _onnx(change: Callable[[Any], None]) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 0.01, (6, 3, 8, 8)).astype(np.float32)
    model = helper.make_model(helper.make_graph(
        [helper.make_node("Conv", ["images", "w"], ["c"], strides=[8, 8], kernel_shape=[8, 8]),
         helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Reshape", ["s", "shape"], ["output"])], "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 6, "n"])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([0, 6, -1]), "shape")]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    change(model)
    made: bytes = model.SerializeToString() if isinstance(model, onnx.ModelProto) else b""
    return made


def _changed(rng: Rng, done: str) -> bytes:
    from onnx import TensorProto, helper

    def change(model: Any) -> None:
        graph = model.graph
        shape = graph.input[0].type.tensor_type.shape.dim
        match done:
            case "an input of another shape":
                shape[int(rng.integers(4))].dim_value = int(_pick(rng, (0, 1, 7, 2**40)))
            case "another type or number of inputs":
                if rng.random() < 0.5:
                    graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
                else:
                    kinds = (TensorProto.STRING, TensorProto.INT64, 99, TensorProto.FLOAT16)
                    graph.input[0].type.tensor_type.elem_type = int(_pick(rng, kinds))
            case "weights that are not there":
                graph.initializer[0].dims[:] = _pick(rng, ([2**40, 3, 8, 8], [6, 3, 8, 9], [-1], [0, 3, 8, 8]))
            case "weights in another file":
                tensor = graph.initializer[0]
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", _pick(rng, ("/etc/passwd", "../../../../etc/passwd", "secret.bin"))), ("length", "4608")):
                    tensor.external_data.add(key=key, value=value)
            case "more memory than there is":
                sides = [2**11, 2**11, int(_pick(rng, (2**9, 2**13)))]
                graph.initializer.append(helper.make_tensor("big", TensorProto.INT64, [3], sides))
                conv, sigmoid, reshape = graph.node
                sigmoid.input[0] = "c2"
                _instead(graph, [helper.make_node("ConstantOfShape", ["big"], ["ones"]),
                                 helper.make_node("ReduceMax", ["ones"], ["most"], keepdims=0), conv,
                                 helper.make_node("Add", ["c", "most"], ["c2"]), sigmoid, reshape])
            case "a loop without an end":
                _looped(graph, int(_pick(rng, (2**31, 2**62))))
            case "operators nobody knows":
                graph.node[1].op_type, graph.node[1].domain = _pick(rng, (("Nothing", ""), ("Sigmoid", "evil"), ("PyOp", "pyopmulti_1")))
                model.opset_import[0].version = int(_pick(rng, (17, 1, 999, -1)))
            case "numbers that are none":
                weights = np.full((6, 3, 8, 8), _pick(rng, (np.nan, np.inf, -np.inf, 1e38)), np.float32)
                graph.initializer[0].raw_data = weights.tobytes()
            case "an answer of another shape":
                graph.initializer[1].raw_data = np.array(_pick(rng, ([0, 3, -1], [-1], [1, 6, -1], [0, 6, -1, 1]))).tobytes()

    return _onnx(change)


def _looped(graph: Any, times: int) -> None:
    """The convolution's answer, added to in a loop that ends in years."""
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["x", "x"], ["y"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    graph.initializer.append(helper.make_tensor("times", TensorProto.INT64, [], [times]))
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    loop = helper.make_node("Loop", ["times", "yes", "c"], ["c2"], body=body)
    conv, sigmoid, reshape = graph.node
    sigmoid.input[0] = "c2"
    _instead(graph, [conv, loop, sigmoid, reshape])


def _instead(graph: Any, nodes: list[Any]) -> None:
    """These nodes in place of the graph's own, of which some may be."""
    copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def head_of(onnx: bytes) -> dict[str, Any]:
    import hashlib

    return dict(name="hostile", model_id=hashlib.sha256(onnx).hexdigest()[:16], kind="detector", created_at="2026-01-01T00:00:00+00:00",
                classes=CLASSES, imgsz=SIDE, preprocess=dict(pad=114), nms=dict(iou=0.7, max_detections=300),
                thresholds=dict.fromkeys(CLASSES, 0.3), metrics={}, settings={}, snapshot_id="", learned=dict(side=0, object=0))


def _bundle(make: Callable[[Rng, str], bytes], description: Callable[[Rng, dict[str, Any]], Any] | None = None,
            ) -> Callable[[Rng, str, Path], Case]:
    def upload(rng: Rng, done: str, folder: Path) -> Case:
        onnx, place = make(rng, done), folder / "model"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(onnx)
        head = description(rng, head_of(onnx)) if description else head_of(onnx)
        (place / "model.json").write_bytes(head if isinstance(head, bytes) else as_json(head))
        return Case("onnx", done, folder=place)
    return upload


def _told_wrong(rng: Rng, head: dict[str, Any]) -> Any:
    key = _pick(rng, ("imgsz", "classes", "thresholds", "nms", "preprocess", "name", "learned", "kind"))
    wrong = dict(imgsz=(0, -1, 10**6, 33, "32", 32.5, None, [32]), classes=([], ["a"], [1, 2], "ab", {"a": 1}, ["a"] * 3, [["a"], ["b"]]))
    return _pick(rng, (head | {key: _pick(rng, wrong.get(key, WRONG))}, mutated(rng, head, 0.15), cut(rng, as_json(head)), [head],
                       b"", b"nul"))


NETWORKS: dict[str, Callable[[Rng, str, Path], Case]] = {
    "cut short": _bundle(lambda rng, done: cut(rng, network())),
    "bits flipped": _bundle(lambda rng, done: flipped(rng, network(), 12)),
    "noise": _bundle(lambda rng, done: rng.bytes(int(rng.integers(0, 3000)))),
    "a description that is wrong": _bundle(lambda rng, done: network(), _told_wrong),
    **{done: _bundle(_changed) for done in (
        "an input of another shape", "another type or number of inputs", "weights that are not there", "weights in another file",
        "more memory than there is", "a loop without an end", "operators nobody knows", "numbers that are none",
        "an answer of another shape")}}


# ---- settings

def _settings(rng: Rng, done: str, folder: Path) -> Case:
    from backend.config import RECIPES

    recipe = _pick(rng, sorted(set(RECIPES) & set(_builtin())))
    return Case("configs", done, config=mutated(rng, RECIPES[recipe]().to_json(), 0.1), recipe=recipe)


@lru_cache(maxsize=1)
def _builtin() -> tuple[str, ...]:
    """Recipes whose settings all have a default."""
    from backend.config import RECIPES

    return tuple(name for name, kind in RECIPES.items() if kind.__module__ == "backend.config" and name != "shift-report")


def _job(rng: Rng, done: str, folder: Path) -> Case:
    """A job.json that somebody wrote by hand, or half of which the disk has lost."""
    recipe = _pick(rng, ("import", "inspect"))
    config = dict(path=str(folder / "nothing"), name="x") if recipe == "import" else dict(images=str(folder / "nothing"), line="L")
    whole = dict(run_id="20260101-000000-000000-import-abcdef", recipe=recipe, config=config, plant="real", by="", code_version="0",
                 created_at="2026-01-01T00:00:00+00:00")
    return Case("configs", done, recipe=recipe, config=_pick(rng, (
        as_json(mutated(rng, whole, 0.12)), as_json(mutated(rng, whole, 0.3)), cut(rng, as_json(whole)), flipped(rng, as_json(whole), 6),
        b"",
        b"null", b"[" * 100_000, rng.bytes(100))))


CONFIGS: dict[str, Callable[[Rng, str, Path], Case]] = {"settings": _settings, "job.json": _job}
