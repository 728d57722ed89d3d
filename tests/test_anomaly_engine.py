"""The anomaly bundle and its engine, on the real network at 64 px with untrained student: what is exported, read, and refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from scipy.ndimage import gaussian_filter

from backend import rundir
from backend.anomaly import calibrate, export
from backend.anomaly.networks import AnomalyNet
from backend.config import Predict
from backend.errors import InputError, NotFoundError
from backend.evaluation import anomaly as evaluation
from backend.inspection import predict
from backend.inspection.anomaly_engine import AnomalyEngine, enlarged, load_anomaly, stretched, top_mean
from backend.inspection.engine import Engine
from backend.teacher.extractors import extractor
from tests import tiny_model

SHARED = Path(__file__).parents[2] / "shared"
S, M = 64, 16
ABOUT: dict[str, Any] = dict(name="odd", snapshot_id="s" * 16, dataset="plates", settings=dict(steps=0))


def picture(seed: int, height: int = S, width: int = S) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 150, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def net() -> Iterator[AnomalyNet]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = AnomalyNet(extractor("efficientnet-lite0"), memory=50).eval()
    torch.nn.init.normal_(made.head.last.weight, std=0.5)                  # an untrained head says the same everywhere
    made.remember([torch.from_numpy(np.stack([picture(80 + k) for k in range(4)]).transpose(0, 3, 1, 2)).float() / 255], 4, S,
                  made.extractor, 0)
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found(net: AnomalyNet) -> calibrate.Calibration:
    mask = np.zeros((S, S), bool)
    mask[20:40, 10:30] = True
    defects = [(np.where(mask[..., None], np.uint8(20), picture(50 + k)), mask) for k in range(4)]
    return calibrate.calibrate(net, [picture(k) for k in range(12)], defects, 0.25)


@pytest.fixture(scope="module")
def folder(net: AnomalyNet, found: calibrate.Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("odd") / "model"
    export.write_bundle(made, net, found, **ABOUT)
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> AnomalyEngine:
    return AnomalyEngine(folder, "onnxruntime-cpu")


# ── the bundle ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_graph_holds_all_that_makes_the_map(net: AnomalyNet, found: calibrate.Calibration, engine: AnomalyEngine) -> None:
    """Smoothing, units and weights by another way: SciPy's Gaussian on the network's own maps."""
    pictures = [picture(k) for k in range(3)]
    with torch.inference_mode():
        maps = [m[:, 0].numpy() for m in net(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2)).float() / 255)]
    smooth = [np.stack([gaussian_filter(m, found.sigma, mode="nearest", truncate=3) for m in some]) for some in maps]
    units = [(s - c) / d for s, c, d in zip(smooth, found.centre, found.scale, strict=True)]
    expected = sum(w * u for w, u in zip(found.weights, units, strict=True))
    assert expected.std() > 0.1 and min(u.std() for u in units) > 0.1
    np.testing.assert_allclose(engine.maps(pictures), expected, atol=2e-3)


def test_all_maps_reach_the_graph(net: AnomalyNet, found: calibrate.Calibration) -> None:
    images = torch.rand(1, 3, S, S, generator=torch.Generator().manual_seed(1))
    maps = []
    for weights in (*np.eye(3).tolist(), [1 / 3] * 3):
        changed = calibrate.Calibration(**{**vars(found), "weights": tuple(weights)})
        with torch.inference_mode():
            maps.append(export.Deployed(net, changed).eval()(images))
    assert not any(torch.allclose(maps[i], maps[j], atol=0.1) for i, j in ((0, 1), (0, 2), (1, 2)))
    torch.testing.assert_close(maps[3], sum(maps[:3]) / 3, atol=1e-3, rtol=1e-3)


def test_what_the_bundle_says(folder: Path, found: calibrate.Calibration) -> None:
    head = rundir.read_json(folder / "model.json")
    assert head["model_id"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()[:16]
    assert (head["kind"], head["classes"], head["imgsz"], head["map_side"], head["name"]) == ("anomaly", ["unusual"], S, M, "odd")
    assert head["thresholds"] == {"unusual": found.threshold} and "threshold_refused" not in head
    assert head["score"] == {"cells": found.cells} and head["preprocess"]["resize"] == "stretch"
    assert head["chosen"]["normals"] == 12 and head["snapshot_id"] == ABOUT["snapshot_id"] and head["settings"] == ABOUT["settings"]


def test_an_export_that_is_off_is_found(net: AnomalyNet, found: calibrate.Calibration, folder: Path) -> None:
    other = calibrate.Calibration(**{**vars(found), "centre": (found.centre[0] + 3 * found.scale[0], *found.centre[1:])})
    with pytest.raises(AssertionError, match="off by"):
        export.check(folder, export.Deployed(net, other).eval(), S)


@pytest.mark.parametrize("thresholds", [{"unusual": 2.5}, {}])
def test_the_store_hears_of_a_threshold_where_there_is_one(tmp_path: Path, folder: Path, thresholds: dict[str, float]) -> None:
    (tmp_path / "parts").mkdir()
    head = rundir.read_json(folder / "model.json") | dict(thresholds=thresholds)
    rundir.write_model(tmp_path, head)
    rundir.write_model(tmp_path, {**head, "created_at": rundir.now()})     # as a resumed run does: the store may have the first already
    model, = rundir.rows(tmp_path, "models").to_pylist()
    assert (model["model_id"], model["kind"], model["classes"]) == (head["model_id"], "anomaly", ["unusual"])
    assert model["created_at"].isoformat() == head["created_at"].replace("Z", "+00:00")
    assert [(r["model_id"], r["class_name"], r["threshold"]) for r in rundir.rows(tmp_path, "model_thresholds").to_pylist()] == [
        (head["model_id"], c, t) for c, t in thresholds.items()]


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_an_engine_says_of_itself(engine: AnomalyEngine, found: calibrate.Calibration) -> None:
    assert (engine.name, engine.imgsz, engine.map_side, engine.threshold) == ("odd", S, M, found.threshold)
    assert engine.pixel_threshold == found.pixel_threshold and engine.map_range == found.map_range
    assert engine.runtime.startswith("onnxruntime-cpu 1.")


def test_a_batch_says_what_each_picture_alone_says(engine: AnomalyEngine) -> None:
    prepared = [engine.prepare(picture(k, 50 + k, 90 - k)) for k in range(engine.batch + 5)]     # more than one network call
    together, alone = engine.maps(prepared), np.concatenate([engine.maps([p]) for p in prepared])
    assert together.dtype == np.float32 and together.shape == (engine.batch + 5, M, M)
    np.testing.assert_allclose(together, alone, atol=2e-3)
    assert engine.maps([]).shape == (0, M, M) and engine.scores(engine.maps([])).shape == (0,)


def test_a_score_is_the_mean_of_the_highest_cells(engine: AnomalyEngine) -> None:
    maps, k = np.random.default_rng(0).normal(size=(5, M, M)).astype(np.float32), engine.head["score"]["cells"]
    expected = [np.mean(sorted(m.ravel().tolist())[-k:]) for m in maps]
    scores = engine.scores(maps)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert top_mean(np.arange(8.0).reshape(1, 2, 4), 3).tolist() == [6.0]


def test_held_out_pictures_score_as_in_calibration(engine: AnomalyEngine, found: calibrate.Calibration) -> None:
    """The threshold came from the network in memory; it is for the artifact. 10 of 12 below it: rank ceil(13 × 0.75)."""
    scores = engine.scores(engine.maps([engine.prepare(picture(k)) for k in range(12)]))
    assert found.threshold is not None and (scores >= found.threshold).sum() == 2
    assert np.sort(scores)[9] == pytest.approx(found.threshold, abs=1e-3)


def test_pictures_are_stretched_whole() -> None:
    wide = np.zeros((10, 200, 3), np.uint8)
    wide[:, 100:] = 200
    fitted = stretched(wide, S)
    assert fitted.shape == (S, S, 3) and fitted.dtype == np.uint8 and not fitted[:, :31].any() and (fitted[:, 33:] == 200).all()
    stripes = np.tile(np.array([0, 200], np.uint8), 128)[None, :, None].repeat(256, 0).repeat(3, 2)
    assert (stretched(stripes, S) == 100).all(), "shrinking averages"
    same = picture(0)
    assert (stretched(same, S) == same).all()


def test_a_cell_is_drawn_where_it_lies() -> None:
    small = np.zeros((M, M))
    small[3, 12] = 1
    large = enlarged(small, 160, 80)
    y, x = (np.average(np.arange(n) + 0.5, weights=large.sum(a)) for n, a in ((80, 1), (160, 0)))
    assert large.shape == (80, 160) and y == pytest.approx(3.5 * 5) and x == pytest.approx(12.5 * 10)


def test_a_model_is_loaded_once_until_its_file_changes(tmp_path: Path, folder: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "m")
    first = load_anomaly(copy)
    assert load_anomaly(copy) is first
    constant(copy, M, name="newer")
    assert load_anomaly(copy).name == "newer"


# ── bundles that cannot be used ──────────────────────────────────────────────────────────────────────────────────────


def constant(folder: Path, side: int, fill: float = 0.0, **changes: Any) -> Path:
    """A bundle whose network answers one number everywhere, on a map of another side perhaps."""
    made = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "column"], ["each"]), helper.make_node("Mul", ["each", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "answer"], ["anomaly_map"])]
    constants = [helper.make_tensor("column", TensorProto.INT64, [3], [-1, 1, 1]), helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
                 helper.make_tensor("answer", TensorProto.FLOAT, [1, side, side], [fill] * side**2)]
    graph = helper.make_graph(made, "odd", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
                              [helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["batch", side, side])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    data = bytes(model.SerializeToString())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    head = dict(name="odd", model_id=hashlib.sha256(data).hexdigest()[:16], kind="anomaly", classes=["unusual"], imgsz=S, map_side=M,
                thresholds={"unusual": 1.0}, score=dict(cells=2), pixel_threshold=1.0, map_range=[0.0, 3.0])
    (folder / "model.json").write_text(json.dumps({k: v for k, v in (head | changes).items() if v is not None}))
    return folder


def test_the_handmade_network_is_one_that_works(tmp_path: Path) -> None:
    assert (AnomalyEngine(constant(tmp_path, M, 0.5)).maps([picture(0)] * 2) == 0.5).all()


@pytest.mark.parametrize(("changes", "said"), [
    (dict(side=8), "'odd' does not answer as an anomaly model with maps of 16 cells a side: its output has the shape 1×8×8"),
    (dict(side=M, fill=float("nan")), "'odd' answers with values that are no numbers"),
    (dict(side=M, score=None, map_side=None), "incomplete: model.json does not say map_side, score"),
    (dict(side=M, kind="detector"), "'odd' is a detector; an anomaly model is needed here"),
    (dict(side=M, kind="oracle"), "'odd' is oracle; an anomaly model is needed here"),
    (dict(side=M, model_id="0" * 16), "'odd' is damaged"),
])
def test_bundles_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AnomalyEngine(constant(tmp_path, **changes))


def test_each_kind_of_model_has_its_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'odd' is an anomaly model; a detector is needed here"):
        Engine(constant(tmp_path, M))
    with pytest.raises(NotFoundError, match=r"model.onnx is missing"):
        (tmp_path / "model.onnx").unlink()
        AnomalyEngine(tmp_path)


def test_a_model_without_a_threshold_gives_maps_and_scores(tmp_path: Path) -> None:
    engine = AnomalyEngine(constant(tmp_path, M, 2.0, thresholds={}))
    assert engine.threshold is None and engine.scores(engine.maps([engine.prepare(picture(0))])).tolist() == [2.0]


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def house(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the anomaly model in it, and a detector of another name."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    shutil.copytree(folder, rundir.create("train-anomaly", {}, state="completed") / "model")
    tiny_model.bundle(rundir.create("train-detector", {}, state="completed") / "model", b"not opened here")
    return tmp_path


def predicted(house: Path, lines: list[str] | None = None) -> dict[str, Any]:
    (house / "list.txt").write_text("\n".join(lines or []))
    config = Predict(model="odd", images=str(house / "in"), list=str(house / "list.txt") if lines else None, out=str(house / "out"))
    return predict.run(config, rundir.create("predict", config.to_json(), state="running"), lambda **told: None)


def shown(house: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (house / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(k, 60 + k, 100)).save(house / "in" / name)


def test_predict_writes_maps_and_scores(house: Path, engine: AnomalyEngine) -> None:
    shown(house, "good/a.png", "bad/b.c.png", "top.png")
    (house / "in" / "cut.png").write_bytes((house / "in" / "top.png").read_bytes()[:90])
    result, scores = predicted(house), json.loads((house / "out" / "scores.json").read_text())
    assert sorted(scores) == ["bad/b.c", "good/a", "top"] and result["images"] == result["maps"] == 3
    assert [r["file_name"] for r in result["refused"]] == ["cut.png"] and result["model_name"] == "odd"
    names = ["good/a.png", "bad/b.c.png", "top.png"]
    expected = evaluation.answers(engine, names, lambda n: np.asarray(Image.open(house / "in" / n)), lambda n: None)
    for name, (amap, score) in zip(names, expected, strict=True):
        saved = np.load(house / "out" / Path(name).with_suffix(".npy"), allow_pickle=False)
        assert saved.dtype == np.float16 and saved.shape == (S, S)
        np.testing.assert_allclose(saved, amap, atol=0.02)
        assert scores[str(Path(name).with_suffix(""))] == pytest.approx(score, abs=2e-3)


def test_predict_refuses_two_pictures_of_one_name(house: Path) -> None:
    shown(house, "a.png", "a.bmp")
    with pytest.raises(InputError, match="Two pictures are called a, with different endings"):
        predicted(house)
    assert predicted(house, ["a.bmp"])["maps"] == 1


def test_a_picture_whose_name_leads_outside_gets_no_map(house: Path) -> None:
    for name in ("../a.png", "b/../../a.png", "/tmp/a.png"):
        with pytest.raises(InputError, match="points outside"):
            predict._stem(name)
    assert predict._stem("..a/b..png") == "..a/b."


@pytest.mark.skipif(not (SHARED / "score").exists() or not (SHARED / "data" / "magnetic-tile").exists(), reason="no shared data and scorer")
def test_the_shared_scorer_reads_maps_of_real_pictures(house: Path) -> None:
    """Pictures of many sizes, masks beside them; an untrained model, but both must say the same of it."""
    tiles = SHARED / "data" / "magnetic-tile"
    lines = (tiles / "splits" / "test.txt").read_text().split()
    lines = [n for part in ("MT_Free", "MT_Blowhole", "MT_Break") for n in lines if part in n][::30]
    for name in lines:
        (house / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiles / name, house / "in" / name)
    predicted(house, lines)
    scorer = SHARED / "score" / "score_anomaly.py"
    done = subprocess.run([sys.executable, str(scorer), str(house / "out"), str(tiles), str(house / "list.txt")],
                          capture_output=True, text=True, timeout=300, check=True)
    theirs, scores = json.loads(done.stdout), json.loads((house / "out" / "scores.json").read_text())
    masks = [np.asarray(Image.open(tiles / Path(n).with_suffix(".png")).convert("L")) > 127 for n in lines]      # of good ones, all black
    stems = [str(Path(n).with_suffix("")) for n in lines]
    ours = evaluation.evaluate([np.load(house / "out" / f"{s}.npy") for s in stems], [scores[s] for s in stems], masks,
                               ["MT_Free" not in n for n in lines])
    assert theirs["images"] == len(lines) > 10
    for figure in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        assert abs(100 * ours[figure] - theirs[figure]) < 1e-6, figure
