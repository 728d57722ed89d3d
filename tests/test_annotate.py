"""What a person must be able to see: boxes where they belong, on any ground, told apart by line and colour, labels inside the picture."""

import subprocess
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from backend.data.demo import CLASSES
from backend.inspection import annotate
from backend.inspection.annotate import COLOURS, colour, draw

NEU = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
GREYS = (0, 40, 90, 128, 170, 215, 255)


def plate(grey: int = 128, size: tuple[int, int] = (200, 200)) -> Image.Image:
    return Image.new("RGB", size, (grey, grey, grey))


def found(class_name: str = "pits", confidence: float = 0.8, box: annotate.Box = (50, 60, 120, 150), **more: Any) -> dict[str, Any]:
    return dict(class_name=class_name, confidence=confidence, **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), **more)


def changed(shown: Image.Image, grey: int = 128) -> np.ndarray:
    """Where something was drawn, (H, W)."""
    return (np.asarray(shown) != grey).any(axis=2)


def distance(a: str, b: str) -> float:
    return float(np.linalg.norm(np.subtract(ImageColor.getrgb(a), ImageColor.getrgb(b))))


def test_the_box_is_drawn_where_it_is_and_the_picture_stays() -> None:
    image = plate()
    shown = draw(image, [found()], label=False)
    own = np.argwhere((np.asarray(shown) == ImageColor.getrgb(colour("pits"))).all(axis=2))
    assert own.min(0).tolist() == [60, 50] and own.max(0).tolist() == [150, 120]
    assert not changed(shown)[70:140, 60:110].any(), "the defect itself stays visible"
    assert not changed(image).any() and shown.size == (200, 200) and shown.mode == "RGB"


def test_a_small_picture_is_enlarged_before_it_is_drawn_on() -> None:
    shown = draw(plate(), [found()], width=800, label=False)
    assert shown.size == (800, 800)
    own = np.argwhere((np.asarray(shown) == ImageColor.getrgb(colour("pits"))).all(axis=2))
    assert own.min(0).tolist() == [240, 200] and own.max(0).tolist() == [600, 480]
    assert draw(plate(size=(1000, 500)), [], width=300).size == (300, 150)
    assert draw(plate(size=(3000, 2)), [found(box=(0, 0, 3000, 2))], width=100).size == (100, 1)


@pytest.mark.parametrize("solid", [True, False])
@pytest.mark.parametrize("class_name", [*CLASSES, *NEU])
def test_every_line_is_seen_on_every_ground(class_name: str, solid: bool) -> None:
    """Somewhere across the line there is a step of brightness of at least a third of the range, whatever the steel."""
    for grey in GREYS:
        shown = draw(plate(grey), [found(class_name, passes=solid)], width=600, label=False).convert("L")
        across = np.asarray(shown, np.int16)[175:186, 150 - 8:150 + 12]                       # the upper left corner's first dash
        assert np.abs(across - grey).max() > 85, (class_name, grey)


def test_dashed_is_what_does_not_make_the_unit_defective() -> None:
    def covered(**more: Any) -> float:
        shown = draw(plate(), [found(**more)], width=600, label=False)
        return float(changed(shown)[180, 150:360].mean())                                     # along the upper side

    assert covered() == covered(passes=True, action="reject") == 1.0
    for more in (dict(passes=False), dict(action="minor"), dict(action="ignore", passes=False)):
        assert 0.3 < covered(**more) < 0.9, more


def test_a_class_keeps_its_colour_and_the_known_sets_share_none() -> None:
    assert colour("pits") == colour("pits") in COLOURS and len(set(COLOURS)) == 8
    for names in (CLASSES, NEU, ("Blowhole", "Break", "Crack", "Fray", "Uneven")):
        assert len({colour(n) for n in names}) == len(names), names
    assert all(distance(a, b) > 60 for a, b in combinations(COLOURS, 2))


def test_labels_stay_inside_and_apart() -> None:
    corners = [(0, 0, 30, 20), (170, 0, 200, 20), (0, 185, 30, 200), (170, 185, 200, 200), (0, 0, 200, 200), (90, 90, 95, 95),
               (91, 91, 96, 96)]
    detections = [found("rolled-in_scale", 0.9 - k / 10, box) for k, box in enumerate(corners)]
    for width in (200, 400, 900):
        places = labels(detections, width)
        assert len(places) == len(detections)
        for x1, y1, x2, y2 in places:
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= width
        for a, b in combinations(places, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (width, a, b)


def labels(detections: list[dict[str, Any]], width: int, size: tuple[int, int] = (200, 200)) -> list[annotate.Box]:
    """Where `draw` put its labels, asked of the function that puts them."""
    places: list[annotate.Box] = []
    real = annotate._label
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotate, "_label", lambda *a: places.append(real(*a)) or places[-1])
        draw(plate(size=size), detections, width=width)
    return places


@pytest.mark.parametrize("name", ["x" * 300, "<script>\n", "Riß", "трещина", "鋼", "", "a b"])
def test_any_class_name_fits_any_picture(name: str) -> None:
    for size in ((200, 200), (60, 40), (1, 1), (2000, 30)):
        for (x1, _, x2, _) in labels([found(name, 0.87, (0, 0, size[0], size[1]))], size[0], size):
            assert x1 >= 0 and (x2 <= size[0] or size[0] < 90)                                # a thumbnail this small holds no words


def test_letters_outside_ascii_are_letters() -> None:
    """A font without the letter draws the same empty box for each."""
    def ink(name: str) -> bytes:
        return draw(plate(), [found(name)], width=600).tobytes()

    assert len({ink(n) for n in ("ä", "ö", "ß", "щ")}) == 4


def test_label_can_be_left_out_and_nothing_found_draws_nothing() -> None:
    assert changed(draw(plate(), [found()])).sum() > changed(draw(plate(), [found()], label=False)).sum()
    assert not changed(draw(plate(), [])).any()


def test_boxes_over_the_border_and_without_size() -> None:
    for box in ((-20, -20, 500, 500), (199, 199, 199, 199), (50, 50, 50.2, 50.2), (300, 300, 400, 400)):
        assert changed(draw(plate(), [found(box=box)], label=False)).any(), box


def test_the_surest_lies_on_top() -> None:
    both = [found("pits", 0.9), found("crack", 0.2)]
    for detections in (both, both[::-1]):
        assert draw(plate(), detections, label=False).getpixel((80, 60)) == ImageColor.getrgb(colour("pits"))


def test_it_is_light() -> None:
    """Pages draw with it in the dashboard's process."""
    heavy = {"cv2", "numpy", "torch", "onnxruntime", "matplotlib"}
    script = f"import sys, backend.inspection.annotate; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_persons_label_carries_no_share() -> None:
    plain = dict(class_name="pits", confidence=None, x1=20, y1=20, x2=60, y2=60)
    font_width = [annotate._text(d, 400, annotate._pen((200, 200)))[0] for d in (plain, {**plain, "confidence": 1.0})]
    assert font_width == ["pits", "pits 100%"]
    assert annotate.draw(Image.new("RGB", (200, 200)), [plain]).size == (200, 200)


@pytest.mark.parametrize("size", [(512, 8000), (10, 25_000), (25_000, 10), (1, 1)])
def test_a_strip_does_not_grow_without_end(size: tuple[int, int]) -> None:
    """A line-scan camera's strip would pass WebP's limit, or take gigabytes of the dashboard's memory."""
    shown = draw(Image.new("RGB", size), [found(box=(0, 0, 1, 1))], width=1280)
    assert 1 <= shown.width <= 1280 and shown.height <= 8192
