"""What this machine computes on. Imports torch only when asked, so that the dashboard stays light."""

import os
from functools import cache
from pathlib import Path

# runtime of thresholds and figures: float32, so that they do not depend on who computes them
REFERENCE = "onnxruntime-cpu"


def cores() -> int:
    """CPU cores this process may use; DIFFSPECT_CORES is a cluster's share of a machine."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, int(os.environ.get("DIFFSPECT_CORES") or there))


def torch_device() -> str:
    """'cuda:0' where torch sees a GPU, otherwise 'cpu'."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


@cache
def computes_bf16() -> bool:
    """Whether bfloat16 arithmetic is native here, on the GPU or in the processor; emulated it is slower than float32.

    Measured on a Zen 4 with AVX512-BF16, two cores: a training step of YOLO11n at 224 px takes 0.57 of the float32 time.
    """
    if torch_device() != "cpu":
        import torch

        return bool(torch.cuda.is_bf16_supported())
    info = Path("/proc/cpuinfo")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(info.read_text().split())) if info.exists() else False
