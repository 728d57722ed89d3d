"""What `bench inference`, the accuracy check and the soak measure with: the same network in every form, rows and ratios, slopes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from backend import __main__
from backend.config import demo_assets
from backend.data import images
from backend.device import REFERENCE
from backend.inspection.runtimes import as_floats, open_network
from tests.benchmarks import inference, soak
from tests.benchmarks.inference_accuracy import bundle_in
from tests.benchmarks.inference_contestants import FORM, KINDS
from tests.benchmarks.inference_models import network_of


def test_the_network_of_a_bundle_is_built_again_and_answers_as_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        found = network_of(demo_assets() / "model")(torch.from_numpy(as_floats(pixels)))[0].numpy()
    expected = next(iter(open_network((demo_assets() / "model" / "model.onnx").read_bytes(), REFERENCE, "demo", 224).stream([pixels])))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.02)


def test_pictures_are_many_though_their_sources_are_few(tmp_path: Path) -> None:
    said = inference.files(tmp_path / "in", 400)
    made = sorted((tmp_path / "in").iterdir())
    data = [p.read_bytes() for p in (made[0], made[360 if "360" in said else 90])]
    assert len(made) == 400 and len({images.sha256(p.read_bytes()) for p in made}) == 400
    assert (np.asarray(images.decode(data[0], "a")) == np.asarray(images.decode(data[1], "b"))).all()


def test_rows_are_medians_and_ratios_are_of_the_same_round() -> None:
    def one(seconds: float) -> dict[str, float]:
        return dict(seconds=seconds, core_s=2 * seconds, pictures=100, boxes=250)

    rounds = {"pipeline": [one(1.0), one(2.0), one(4.0)], "raw": [one(0.5), one(1.0), one(4.0)],
              "yolo_torch": [one(10.0), one(10.0), one(20.0)], "yolo_openvino": [one(2.0)] * 3}
    told = inference.row(224, rounds, dict.fromkeys(rounds, "so"))
    assert set(KINDS) == set(FORM) == set(rounds)
    assert (told["pipeline_ips"], told["raw_ips"], told["yolo_torch_ips"], told["yolo_openvino_ips"]) == (50, 100, 10, 50)
    assert (told["pipeline_to_raw"], told["pipeline_to_yolo_torch"]) == (0.5, 5.0), "not the ratio of the medians"
    assert told["boxes_per_image"]["pipeline"] == 2.5 and told["core_ms"]["raw"] == 20.0
    arms = inference.arms({224: rounds})
    assert arms["OpenVINO alone, ready tensors"]["224 px, pipeline is so many times as fast"] == [0.5, 0.5, 1.0]


def test_memory_that_grows_is_not_flat() -> None:
    rng = np.random.default_rng(0)
    def samples(growth: float) -> list[soak.Sample]:
        return [dict(minutes=k / 6, rss_mb=300 + growth * k / 6 + rng.normal(0, 0.5), handles=12.0) for k in range(180)]

    flat, growing = soak.slope(samples(0.0), "rss_mb"), soak.slope(samples(0.3), "rss_mb")
    assert flat["low"] <= 0 <= flat["high"] < soak.FLAT and growing["low"] > soak.FLAT
    assert soak.slope(samples(0.0), "handles") == dict(slope=0.0, low=0.0, high=0.0)


def test_the_command_and_where_a_model_is_found(tmp_path: Path) -> None:
    said = vars(__main__.parser(False).parse_args(["bench", "inference", "--imgsz", "224", "640", "--json"]))
    assert (said["benchmark"], said["imgsz"], said["rounds"], said["model"]) == ("inference", [224, 640], 5, "")
    assert bundle_in(demo_assets() / "model") == demo_assets() / "model"
    with pytest.raises(FileNotFoundError, match="no deployed detector"):
        bundle_in(tmp_path)
