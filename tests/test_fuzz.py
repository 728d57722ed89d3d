"""Bad uploads of every kind, as chance makes them: each is used, or refused with a sentence, and nothing is written where it may not be.

A small share of what `tests.benchmarks.fuzz` tries; what that once found stands here as cases of their own.
"""

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backend.config import Import, Inspect, TrainDetector
from backend.data import files, layouts_boxes
from backend.errors import ConfigError, InputError
from backend.inspection import description
from tests import attempts, hostile

pytestmark = pytest.mark.filterwarnings("ignore")          # of what writes such files, and of decoders: the product catches or prints them
SLOW = {"bombs", "100 megapixels in 100 KB", "a directory beyond measure", "thousands of nothing", "megabytes of text inside"}
LIGHT = {"onnx": "a description that is wrong"}            # networks that compute for ever, or for long, are the benchmark's
_number = count()


# Not shrunk: a number is no larger than another, and each attempt takes 50 ms.
@settings(max_examples=110, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True,
          phases=[Phase.explicit, Phase.generate])
@given(kind=st.sampled_from(["images", "zips", "annotations", "configs", "onnx"]), n=st.integers(0, 10_000),
       seed=st.integers(0, 2**32 - 1))
def test_any_bad_upload_ends_in_a_sentence_or_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, n: int,
                                                      seed: int) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", "")                                       # given back at the end: the attempt sets it
    root = tmp_path / str(next(_number))
    root.mkdir()
    case = hostile.case(kind, n, seed, root / "upload")
    if case.done in SLOW or LIGHT.get(kind, case.done) != case.done:
        return
    told = attempts.attempt(case, root)
    assert not {s: why for s in told.said if (why := attempts.not_plain(s, root))}, case.done
    assert sum(told.counts.values()) and attempts.outside(root) == []
    assert {p for p, size in attempts.written(root).items() if size >= 0 and not p.startswith(str(root / "upload"))} == set()


def test_the_same_seed_gives_the_same_upload(tmp_path: Path) -> None:
    for kind in ("images", "zips", "annotations", "configs"):
        a, b = (hostile.case(kind, 7, 3, tmp_path / which) for which in "ab")
        assert a.files == b.files and str(a.config).replace("/a/", "/b/") == str(b.config)


# ---- what was found

@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_entities_are_seen_in_every_encoding(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [<!ENTITY a "ha">]><annotation>&a;</annotation>'.encode(encoding)
    entry = files.Entry("a.xml", len(text), lambda: __import__("io").BytesIO(text))
    assert layouts_boxes._voc_root(entry) is None


@pytest.mark.parametrize("wide", [False, True])
def test_a_directory_beyond_measure_is_not_even_read(tmp_path: Path, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 bytes of memory for each of its entries: a gigabyte of nothing else would take ten."""
    import struct

    monkeypatch.setattr(files, "MAX_DIRECTORY", 10**6)
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    body = entry * 30_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 30_000, 30_000, 0xFFFFFFFF if wide else len(body), 0, 0)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 30_000, 30_000, len(body), 0) + struct.pack(
        "<4sIQI", b"PK\x06\x07", 0, len(body), 1) if wide else b""
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04" + body + record + end)
    with files.listing(path) as found:
        assert found == [files.Refusal("a.zip", "It holds more than 100,000 files.")]


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Import(name="a\0b"), "name cannot be .* something that cannot be used there"),
    (lambda: Import(name="\ud800"), "name cannot be"), (lambda: Import(name="x" * 10**6), "name cannot be \"x{50,}…: "),
    (lambda: Import(name=["x"] * 500), "name must be text, not .{0,81}"),                              # type: ignore[arg-type]
    (lambda: Inspect.from_json([]), "no names with values"),                                             # type: ignore[arg-type]
    (lambda: TrainDetector(learning_rate=float("nan")), "learning_rate cannot be NaN"),
    (lambda: TrainDetector(epochs=10**400), "epochs cannot be"), (lambda: TrainDetector(epochs="3"), "must be a whole number")])   # type: ignore[arg-type]
def test_settings_that_nobody_means_are_refused_in_a_line(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        make()                                                                                           # type: ignore[operator]
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


def test_a_network_whose_weights_lie_elsewhere_is_refused() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    outside = hostile._changed(rng, "weights in another file")
    with pytest.raises(InputError, match="'x' keeps its weights in another file. Export it as one file."):
        description.alone(outside, "x")
    description.alone(hostile.network(), "x")
    description.alone(hostile.network() + b"\n\x08location", "x")        # the word alone is nothing
