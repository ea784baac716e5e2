"""What launches of Triton kernels need to know of a device."""

from contextlib import AbstractContextManager, nullcontext

import torch


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, wherever the tensors are; the CPU has none."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
