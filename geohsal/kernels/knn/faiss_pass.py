"""First pass by faiss (optional): its flat index finds a few more neighbours than are needed."""

import importlib
from typing import Any

import torch
from torch import Tensor

from geohsal.errors import KernelError
from geohsal.kernels.knn.search import UNIT, Shortlist

_SPARE = 8


class FaissPass:
    """Squared distances by `IndexFlatL2`, on the CPU."""

    block_pixels = 4096

    def __init__(self, bank: Tensor) -> None:
        self._size, self._dim = bank.shape
        self._index: Any = _faiss(bank.device).IndexFlatL2(self._dim)
        self._index.add(bank.contiguous().numpy())

    def shortlist(self, points: Tensor, count: int) -> Shortlist:
        keep = min(count + _SPARE, self._size)
        found, index = self._index.search(points.contiguous().numpy(), min(keep + 1, self._size))
        limit = torch.full((len(points),), torch.inf, dtype=torch.float64)
        if index.shape[1] > keep:
            limit = torch.from_numpy(found[:, keep]).double() - points.double().square().sum(1)
        return Shortlist(torch.from_numpy(index[:, :keep]), limit)

    def error(self, size: Tensor, reach: Tensor) -> Tensor:
        return (self._dim + 8) * UNIT * (size + reach).square()


def _faiss(device: torch.device) -> Any:
    """The module.

    Raises:
        KernelError: it is not installed, or the tensors are not on the CPU.
    """
    if device.type != "cpu":
        raise KernelError(
            f"plar.knn_backend=faiss searches on the CPU, the features are on {device.type}; set "
            "plar.knn_backend=torch"
        )
    try:
        return importlib.import_module("faiss")
    except ImportError:
        raise KernelError(
            "plar.knn_backend=faiss: faiss is not installed; pip install geohsal[faiss], or set "
            "plar.knn_backend=torch"
        ) from None
