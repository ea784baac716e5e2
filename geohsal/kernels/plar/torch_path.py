"""PLAR scores in float32 by chunks of pixels: the same code on CPU and GPU.

Features are centred first, so float32 loses nothing that a decision could notice; pixels whose
comparisons are closer than the tie tolerance are scored again in float64. Decisions therefore
depend neither on the chunk size nor on the order of the pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from geohsal.kernels.plar.decision import Settings, decide
from geohsal.kernels.plar.operands import PlarOperands, PlarScores
from geohsal.kernels.plar.reference import centre, reference_scores

_BLOCK_VALUES = 1 << 22
"""Most float32 values of whitened differences at a time: 16 MiB."""


def chunked_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    settings: Settings,
    chunk_pixels: int,
) -> PlarScores:
    """Scores of features [N, F]; extra memory grows with the chunk, not with N."""
    with _full_precision(features.device.type):
        parts = [
            _score_chunk(chunk, labels, operands, settings)
            for chunk, labels in zip(
                torch.split(features, chunk_pixels),
                torch.split(pseudo, chunk_pixels),
                strict=True,
            )
        ]
        scores = PlarScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
        for rows in torch.split(scores.near_tie.nonzero()[:, 0], chunk_pixels):
            if len(rows):
                _score_again(scores, rows, features, pseudo, operands, settings)
    return scores


def _score_chunk(
    features: Tensor, pseudo: Tensor, operands: PlarOperands, settings: Settings
) -> PlarScores:
    centred, valid = centre(features, operands, dtype=torch.float32)
    flat = centred @ operands.projection.T
    euclid, mahalanobis = [], []
    for block in _class_blocks(len(features), operands):
        euclid.append(_nearest(flat[:, None, :], operands.means[block]))
        matrix = operands.whitening[block]
        white = centred @ matrix.reshape(-1, matrix.shape[2]).T
        white = white.view(len(features), *matrix.shape[:2])
        mahalanobis.append(_nearest(white, operands.bias[block]))
    return decide(
        torch.cat(euclid, 1),
        torch.cat(mahalanobis, 1),
        pseudo=pseudo,
        valid=valid,
        operands=operands,
        settings=settings,
    )


def _class_blocks(pixels: int, operands: PlarOperands) -> Iterator[slice]:
    dim = operands.bias.shape[2]
    step = max(1, _BLOCK_VALUES // max(1, pixels * dim))
    for start in range(0, operands.num_classes, step):
        yield slice(start, start + step)


def _nearest(points: Tensor, prototypes: Tensor) -> Tensor:
    """Least squared distance [N, C] of points [N, C or 1, D] to prototypes [C, K, D]."""
    nearest = (points - prototypes[:, 0]).square().sum(2)
    for other in range(1, prototypes.shape[1]):
        nearest = torch.minimum(nearest, (points - prototypes[:, other]).square().sum(2))
    return nearest


def _score_again(
    scores: PlarScores,
    rows: Tensor,
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> None:
    """Replaces rows by their float64 scores; they stay flagged."""
    exact = reference_scores(
        features[rows],
        pseudo[rows],
        operands,
        rule=settings.rule,
        agreement=settings.agreement,
        tie=settings.tie,
    )
    for column, values in zip(scores[:-1], exact[:-1], strict=True):
        column[rows] = values


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """No autocast, TF32 or bfloat16 products: they turn more decisions than the tie band covers."""
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(asked)
