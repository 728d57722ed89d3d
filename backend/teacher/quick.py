"""A frozen network in torch's place: on a processor OpenVINO computes it, elsewhere torch does.

A teacher never learns, so its gradient is not needed; by torch it was half of a training step of an anomaly model. EfficientNet-Lite0 at
256 px, 24 images, one core of a Zen 3 in float32: 0.33 s where torch takes 1.5 s; maps differ by less than 1e-4.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from backend.device import cores, openvino_core
from backend.teacher.extractors import Extractor

See = Callable[[Tensor], Sequence[Tensor]]       # images (B, 3, S, S), 0 to 1, to one map a level, finest first


def seeing(extractor: Extractor, side: int, bf16: bool, device: str) -> See:
    """What answers as `extractor` does on images of this side, without gradients. `bf16`: in that arithmetic, where it may."""
    if device != "cpu" or not find_spec("openvino"):
        return extractor
    try:
        compiled = _compiled(extractor, side, bf16)
    except Exception as problem:                                         # of somebody else's network, whatever it meets in it
        print(f"OpenVINO does not take the teacher {extractor.name}, so PyTorch computes it, more slowly: "
              f"{(str(problem).strip() or type(problem).__name__).splitlines()[0][:200]}", flush=True)
        return extractor
    outputs = list(compiled.outputs)

    def see(images: Tensor) -> list[Tensor]:
        found = compiled([images.detach().float().contiguous().numpy()])
        return [torch.from_numpy(found[level]).contiguous(memory_format=torch.channels_last) for level in outputs]

    return see


def _compiled(extractor: Extractor, side: int, bf16: bool) -> Any:
    import openvino as ov

    root = logging.getLogger()
    level, handlers, filters = root.level, list(root.handlers), list(root.filters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                              # of tracing: sides and widths are fixed, and meant to be
            network = ov.convert_model(extractor, example_input=torch.zeros(2, 3, side, side), input=[-1, 3, side, side])
    finally:                                                             # the conversion silences the root logger, and everybody's warnings
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters
    return openvino_core().compile_model(network, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "INFERENCE_NUM_THREADS": cores(),
        "ENABLE_CPU_PINNING": False})                    # else trainings that share a machine, a core each, would all take the first one
