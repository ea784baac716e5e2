"""Full precision inside an operator, whatever its surroundings ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """No autocast, TF32 or bfloat16 products: they turn more decisions than the radii cover."""
    family: Any = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    backend: Any = getattr(family, "matmul", None)
    by_backend = hasattr(backend, "fp32_precision")  # torch 2.9; mixing it with the older raises
    asked = backend.fp32_precision if by_backend else torch.get_float32_matmul_precision()
    _ask(backend, "ieee" if by_backend else "highest", by_backend=by_backend)
    try:
        with torch.autocast(device_type, enabled=False), torch.no_grad():
            yield
    finally:
        _ask(backend, asked, by_backend=by_backend)


def _ask(backend: Any, precision: str, *, by_backend: bool) -> None:
    if by_backend:
        backend.fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)
