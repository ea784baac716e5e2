"""The torch custom op `geohsal::knn_scores` and its public wrapper.

The first pass of the search is torch's on the CPU, a Triton kernel on CUDA devices, or faiss where
that is asked for. All of them are followed by the same proof and vote.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geohsal.errors import KernelError
from geohsal.kernels.knn.decision import ClassScores, Neighbours, decide, project, vote, wanted
from geohsal.kernels.knn.faiss_pass import FaissPass
from geohsal.kernels.knn.operands import KnnOperands, KnnScores
from geohsal.kernels.knn.reference import DEFAULT_TIE
from geohsal.kernels.knn.search import FirstPass, nearest
from geohsal.kernels.knn.torch_path import TorchPass
from geohsal.kernels.precision import full_precision

_Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_Passes = Sequence[Callable[[Tensor], FirstPass]]


@torch.library.custom_op("geohsal::knn_scores", mutates_args=())
def knn_scores_op(
    features: Tensor,
    pseudo: Tensor,
    center: Tensor,
    projection: Tensor,
    bank: Tensor,
    bank_label: Tensor,
    class_weight: Tensor,
    gate: Tensor,
    gated: Tensor,
    margin: Tensor,
    support: Tensor,
    abstain: Tensor,
    scale: float,
    neighbours: int,
    backend: str,
    tie: float,
    chunk_pixels: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Shapes are those of `KnnOperands`; the outputs are the fields of `KnnScores`."""
    operands = KnnOperands(
        center=center,
        projection=projection,
        bank=bank,
        bank_label=bank_label,
        class_weight=class_weight,
        gate=gate,
        gated=gated,
        margin=margin,
        support=support,
        abstain=abstain,
        scale=scale,
        neighbours=neighbours,
    )
    parts = []
    with full_precision(features.device.type):
        found, valid = find_neighbours(
            features, operands, backend=backend, chunk_pixels=chunk_pixels
        )
        for start in range(0, max(1, len(features)), chunk_pixels):
            rows = slice(start, start + chunk_pixels)
            block = Neighbours(found.distance[rows], found.row[rows])
            parts.append(
                decide(block, pseudo=pseudo[rows], valid=valid[rows], operands=operands, tie=tie)
            )
    return KnnScores(*(torch.cat(column) for column in zip(*parts, strict=True)))


@knn_scores_op.register_fake
def _(features: Tensor, *operands: object) -> _Outputs:
    pixels = features.shape[0]
    pair = features.new_empty(pixels, 2, dtype=torch.float32)
    code = features.new_empty(pixels, dtype=torch.uint8)
    return (
        features.new_empty(pixels, 2, dtype=torch.uint8),
        pair,
        code,
        features.new_empty(pixels, dtype=torch.float32),
        torch.empty_like(code),
        features.new_empty(pixels, dtype=torch.bool),
    )


def find_neighbours(
    features: Tensor, operands: KnnOperands, *, backend: str, chunk_pixels: int
) -> tuple[Neighbours, Tensor]:
    """Neighbours of raw features [N, F], k and the one after, and which rows are valid."""
    parts = [project(chunk, operands) for chunk in torch.split(features, chunk_pixels)]
    points, valid = (torch.cat(column) for column in zip(*parts, strict=True))
    passes = _passes(backend, features.device)
    return nearest(points, operands.bank, wanted(operands), passes), valid


def _passes(backend: str, device: torch.device) -> _Passes:
    if backend == "faiss":
        return (FaissPass, TorchPass)
    assert backend == "torch", backend
    if device.type != "cuda":
        return (TorchPass,)
    try:
        from geohsal.kernels.knn.triton_kernel import TritonPass
    except ImportError:
        raise KernelError(
            "plar.rule=knn on a CUDA device needs triton: pip install triton, or use --device cpu"
        ) from None
    return (TritonPass, TorchPass)


def knn_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: KnnOperands,
    *,
    backend: str = "torch",
    tie: float = DEFAULT_TIE,
    chunk_pixels: int = 4096,
) -> KnnScores:
    """Scores and decision codes of raw features [N, F] with pseudo-labels [N].

    Args:
        features: any float type, on the operands' device; non-finite rows come back INVALID.
        pseudo: integer class ids of the teacher.
        operands: bank, class weights and thresholds.
        backend: `torch` (on CUDA devices with a Triton kernel) or `faiss` (CPU only).
        tie: relative width of the band in which pixels are flagged as near ties.
        chunk_pixels: pixels projected and decided at a time.

    Raises:
        KernelError: the backend cannot run here.
    """
    outputs = knn_scores_op(
        features,
        pseudo,
        *operands.tensors().values(),
        operands.scale,
        operands.neighbours,
        backend,
        tie,
        chunk_pixels,
    )
    return KnnScores(*outputs)


def class_scores(
    features: Tensor, operands: KnnOperands, *, backend: str = "torch", chunk_pixels: int = 4096
) -> ClassScores:
    """Distances and scores [N, C] of raw features [N, F] for every class; no thresholds.

    Rows that the operator calls INVALID are infinitely far from every class and lean to none.
    """
    with full_precision(features.device.type):
        found, valid = find_neighbours(
            features, operands, backend=backend, chunk_pixels=chunk_pixels
        )
        distance, q = vote(found, operands)
    outside, known = ~valid[:, None], operands.present.sum()
    return ClassScores(
        distance.masked_fill(outside, torch.inf),
        torch.where(outside & operands.present, 2 * known.double().log(), q),
    )


def require_backend(backend: str, device: torch.device) -> None:
    """Ask for a backend before anything is computed.

    Raises:
        KernelError: the backend cannot run here.
    """
    bank = torch.zeros(1, 1, device=device)
    for make in _passes(backend, device):
        make(bank)
