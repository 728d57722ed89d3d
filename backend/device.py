"""What this machine computes on. Imports torch only when asked, so that the dashboard stays light."""

import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

# runtime of thresholds and figures: float32, so that they do not depend on who computes them
REFERENCE = "onnxruntime-cpu"
_opening = Lock()                         # two threads that miss a cache at once would both fill it


def cores() -> int:
    """CPU cores this process may use; DIFFSPECT_CORES is a cluster's share of a machine."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, int(os.environ.get("DIFFSPECT_CORES") or there))


def torch_device() -> str:
    """'cuda:0' where torch sees a GPU, otherwise 'cpu'."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def openvino_core() -> Any:
    """The process's one, which never goes: its plug-in for processors lays a signal stack under the thread that opened it and takes the
    memory back when it goes, by whatever thread's garbage collection. The next signal, a child's end for instance, ended the process."""
    with _opening:
        return _core()


@cache
def _core() -> Any:
    import openvino as ov

    return ov.Core()


@cache
def computes_bf16() -> bool:
    """Whether bfloat16 arithmetic is native here, on the GPU or in the processor; emulated it is slower than float32.

    Measured on a Zen 4 with AVX512-BF16, two cores: a training step of YOLO11n at 224 px takes 0.57 of the float32 time.
    """
    if torch_device() != "cpu":
        import torch

        return bool(torch.cuda.is_bf16_supported())
    return "bf16" in arithmetics()


def in_bf16(precision: str) -> bool:
    """Whether a training of this precision (auto, f32, bf16) computes in bfloat16. Who asks for it where it is emulated is told."""
    if precision == "bf16" and not computes_bf16():
        _warn_emulated()
    return precision == "bf16" or (precision == "auto" and computes_bf16())


@cache
def _warn_emulated() -> None:
    """Measured on a processor with AVX2 alone: a training step of YOLO11n at 224 px takes 8 times as long as in float32."""
    print("This machine has no bfloat16 of its own, so it is imitated, which takes several times as long as float32. The precision 'auto' "
          "avoids that.", flush=True)


@cache
def arithmetics() -> list[str]:
    """Which arithmetics the processor has in hardware that beat float32, the fastest first: bf16, int8 (VNNI, which multiplies and adds
    bytes in one step: without it sums may run over, and the gain is a third where it is two)."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    has = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "int8": {"avx512_vnni", "avx_vnni"}}
    return [name for name, one_of in has.items() if words & one_of]
