"""What this machine computes on. Imports torch only when asked, so that the dashboard stays light."""

import os


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_device() -> str:
    """'cuda:0' where torch sees a GPU, otherwise 'cpu'."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
