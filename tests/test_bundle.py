"""A model taken away: in a process that knows nothing of this product it says what the engine says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import ExportModel, demo_assets
from backend.data import demo
from backend.data.decoding import decode
from backend.device import REFERENCE
from backend.errors import ConfigError, NotFoundError
from backend.inspection import bundle, infer
from backend.inspection.anomaly_engine import AnomalyEngine, stretched
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.engine import Engine
from tests import plates, small_anomaly, test_classifier_engine


def said(folder: Path, *words: str) -> list[dict]:
    """What infer.py prints, in a clean process: no folder of ours to import from, no variable of ours."""
    done = subprocess.run([sys.executable, "-I", str(folder / "infer.py"), *words], capture_output=True, text=True, cwd=folder,
                          env={"PATH": os.environ["PATH"]}, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn plates: as they are, of odd sides, and four as one large picture."""
    folder = tmp_path_factory.mktemp("in")
    plate = [demo.render(demo.image_id(40 + k, 1, "a", 1, ("pits",) if k % 2 else ("scratch",))).image for k in range(4)]
    for k, picture in enumerate(plate):
        picture.save(folder / f"{k}.png")
    plate[0].crop((0, 31, 256, 200)).resize((401, 233)).save(folder / "odd.png")
    large = np.concatenate([np.concatenate([np.asarray(p) for p in plate[:2]], 1), np.concatenate([np.asarray(p) for p in plate[2:]], 1)])
    Image.fromarray(large).save(folder / "large.png")
    return folder


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_same_boxes_without_this_product(shown: Path, tmp_path: Path, form: str) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    head = rundir.read_json(demo_assets() / "model" / "model.json") | dict(learned=dict(side=256, object=60))
    model.mkdir()
    (model / "model.onnx").write_bytes((demo_assets() / "model" / "model.onnx").read_bytes())
    rundir.write_json(model / "model.json", head)
    bundle.write(model, out, form)
    engine, tolerance = Engine(model, REFERENCE), 0.1                      # px
    answers = {Path(row["file"]).name: row for row in said(out, "--all", str(shown))}
    assert sorted(answers) == sorted(p.name for p in shown.iterdir()) and engine.tile == (256, 66)
    for name, row in answers.items():
        expected = engine.predict([np.asarray(Image.open(shown / name))], 0.2)[0]
        found = [d for d in row["detections"] if d["confidence"] > 0.2]
        assert [d["class_name"] for d in found] == [engine.classes[int(k)] for k in expected[:, 5]], name
        np.testing.assert_allclose([d["box"] for d in found], expected[:, :4].reshape(-1, 4), atol=tolerance)
        np.testing.assert_allclose([d["confidence"] for d in found], expected[:, 4], atol=2e-3)
    assert any(min(d["box"]) > 256 for d in answers["large.png"]["detections"]) and answers["0.png"]["detections"]


def test_classifier_and_anomaly_model(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(small_anomaly.picture(1, (5, 5, 40, 30)))
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    bundle.write(test_classifier_engine.bundle(tmp_path / "c"), tmp_path / "classifier", "onnx")
    row, = said(tmp_path / "classifier", str(tmp_path / "a.png"))
    engine = ClassifierEngine(tmp_path / "c", REFERENCE)
    expected = engine.probabilities([engine.prepare(pixels)])[0]
    assert list(row["probabilities"]) == engine.all_classes
    np.testing.assert_allclose(list(row["probabilities"].values()), expected, atol=2e-3)
    bundle.write(small_anomaly.bundle(tmp_path / "o"), tmp_path / "odd", "onnx")
    row, = said(tmp_path / "odd", str(tmp_path / "a.png"))
    odd = AnomalyEngine(tmp_path / "o", REFERENCE)
    assert row["unusual"] is True and row["score"] == pytest.approx(float(odd.scores(odd.maps([odd.prepare(pixels)]))[0]), abs=5e-3)


@pytest.mark.parametrize("size", [(48, 60), (33, 200), (20, 20), (64, 64), (31, 97)])
def test_pictures_are_fitted_as_the_engine_fits_them(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.abs(infer.stretched(image, 32).astype(int) - stretched(image, 32)).max() <= 1


def test_the_recipe_and_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    result = bundle.run(ExportModel(out=str(tmp_path / "out")), tmp_path, plates.silent)
    assert result["files"] == ["infer.py", "model.json", "model.onnx", "tiles.py"] and result["model_name"] == "demo"
    with pytest.raises(ConfigError, match="Choose a folder"):
        bundle.run(ExportModel(), tmp_path, plates.silent)
    with pytest.raises(NotFoundError):
        bundle.run(ExportModel(model="nobody", out=str(tmp_path)), tmp_path, plates.silent)


def test_a_picture_is_opened_as_the_product_opens_it_and_a_bad_one_keeps_nobody(shown: Path, tmp_path: Path) -> None:
    """Deep greys, transparent parts, colours; what cannot be read is told in its place, and the exit code says so."""
    plate, rng = np.asarray(Image.open(shown / "0.png")), np.random.default_rng(0)
    grey = plate[..., 0].astype(np.uint16)
    alpha = rng.integers(0, 255, grey.shape).astype(np.uint8)
    for name, image in {"ten.png": Image.fromarray(grey * 4), "sixteen.tif": Image.fromarray(grey * 257),
                        "float.tif": Image.fromarray((grey / 255).astype(np.float32)),
                        "clear.png": Image.fromarray(np.dstack([plate, alpha])),
                        "print.jpg": Image.fromarray(plate).convert("CMYK"), "grey.bmp": Image.fromarray(plate[..., 0])}.items():
        image.save(tmp_path / name)
        ours, theirs = decode((tmp_path / name).read_bytes(), name), infer.opened(tmp_path / name)
        assert np.array_equal(np.asarray(ours), theirs), name
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "empty.jpg").write_bytes(b"")
    (tmp_path / "bad" / "half.png").write_bytes((shown / "0.png").read_bytes()[:2000])
    Image.fromarray(plate).save(tmp_path / "bad" / "two.tif", save_all=True, append_images=[Image.fromarray(plate)])
    Image.fromarray(plate).save(tmp_path / "bad" / "well.png")
    bundle.write(demo_assets() / "model", tmp_path / "out", "onnx")
    done = subprocess.run([sys.executable, "-I", str(tmp_path / "out" / "infer.py"), str(tmp_path / "bad"), str(tmp_path / "none.png")],
                          capture_output=True, text=True, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=120)
    told = {Path(row["file"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1 and "Traceback" not in done.stderr and "detections" in told.pop("well.png")
    assert set(told) == {"empty.jpg", "half.png", "two.tif", "none.png"} and all("error" in row for row in told.values())
    assert told["none.png"]["error"] == "There is no such file."
