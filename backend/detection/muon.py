"""MuSGD's orthogonal steps, in float32 where the processor has no bfloat16.

Ultralytics computes them in bfloat16 on every machine. Where that is emulated, they take most of a training: for YOLO11n 6.4 s a step
on one core of a processor with AVX2 alone, and 0.26 s in float32, beside 1.1 s for the network itself. The two differ by bfloat16's
rounding, 2 % of the step. Where bfloat16 is native the library's own stays.
"""

import torch
from torch import Tensor
from ultralytics.optim import muon

from backend.device import computes_bf16

ROUNDS, CUBIC, QUINTIC, LINEAR = 5, -4.7750, 2.0315, 3.4445         # as the library's: Newton and Schulz's iteration, tuned for Muon


def fit_to_machine() -> None:
    """Exchange the library's function, once for the process, where this machine computes it faster otherwise."""
    if not computes_bf16():
        muon.zeropower_via_newtonschulz5 = orthogonal


def orthogonal(update: Tensor, eps: float = 1e-7) -> Tensor:
    """Matrices (..., n, m) with their singular values brought near 1: float32, of the same shape."""
    tall = update.size(-2) > update.size(-1)
    x = update.reshape(-1, *update.shape[-2:]).float()
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + eps)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = LINEAR * x + torch.baddbmm(square, square, square, beta=CUBIC, alpha=QUINTIC) @ x
    return (x.mT if tall else x).reshape(update.shape)
