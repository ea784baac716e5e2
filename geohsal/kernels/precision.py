"""Full precision inside an operator, whatever its surroundings ask for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """No autocast, TF32 or bfloat16 products: they turn more decisions than the radii cover."""
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(asked)
