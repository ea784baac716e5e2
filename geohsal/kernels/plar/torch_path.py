"""PLAR scores by chunks of pixels in plain torch: the same code on CPU and GPU.

Float32: features are centred first, so nothing is lost that a decision could notice. Half
precision: see `rounding`. Pixels whose comparisons are closer than the radii of their errors are
scored again, half precision in float32, float32 in float64. Decisions therefore depend neither on
the precision nor on the chunk size nor on the order of the pixels.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from geohsal.kernels.plar.decision import Distances, Settings, decide
from geohsal.kernels.plar.operands import PlarOperands, PlarScores
from geohsal.kernels.plar.reference import centre, reference_scores, with_radius
from geohsal.kernels.plar.rounding import RoundedOperands
from geohsal.kernels.precision import full_precision

_BLOCK_VALUES = 1 << 22
"""Most values of whitened differences at a time: 16 MiB in float32, so that they stay in cache."""

_FLAT_ERROR = 2e-6
"""Error of expanded Euclidean distances in float32, relative to the squared lengths."""

_ROW_BLOCKS = 4
_LEAST_SAVING = 0.15
_LEAST_BLOCK = 16


class _Block(NamedTuple):
    """Rows of some matrices that read the first `columns` features."""

    slots: slice  # 0 is the projection, c + 1 the whitening of class c
    columns: int
    weight: Tensor  # [rows, columns], rows matrix by matrix
    factor: Tensor | None  # [rows], undoes the scale of half-precision weights
    bias: Tensor  # [rows], of prototype 0
    others: Tensor  # [K - 1, rows], bias of the other prototypes minus that


class _Plan(NamedTuple):
    """Operands in the order in which a chunk meets them."""

    blocks: list[_Block]
    covectors: Tensor  # [C x K, F], prototypes of the Euclidean space
    lengths: Tensor  # [C x K, 1], their squared lengths in that space
    norms: Tensor  # [C, 1], longest covector


def chunked_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    settings: Settings,
    chunk_pixels: int,
    rounded: RoundedOperands | None = None,
) -> PlarScores:
    """Scores of features [N, F]; extra memory grows with the chunk, not with N.

    Args:
        features: raw features of any float type.
        pseudo: [N] class ids of the teacher.
        operands: the definition.
        settings: rule and tie.
        chunk_pixels: pixels at a time.
        rounded: score in this half precision first.
    """
    with full_precision(features.device.type):
        plan = _make_plan(operands, rounded, chunk_pixels)
        parts = []
        for chunk, labels in zip(
            torch.split(features, chunk_pixels), torch.split(pseudo, chunk_pixels), strict=True
        ):
            centred, valid = centre(chunk, operands, dtype=torch.float32)
            distances = _distances(centred, plan, operands, rounded, settings)
            parts.append(
                decide(distances, pseudo=labels, valid=valid, operands=operands, settings=settings)
            )
        scores = PlarScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
        again = score_again_float32 if rounded is not None else _score_again_float64
        again(scores, features, pseudo, operands, settings=settings, chunk_pixels=chunk_pixels)
    return scores


def score_again_float32(
    scores: PlarScores,
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    settings: Settings,
    chunk_pixels: int,
) -> None:
    """Replaces flagged rows by their float32 scores, whose own near ties are kept as flags."""
    rows = scores.near_tie.nonzero()[:, 0]
    if len(rows):
        better = chunked_scores(
            features[rows], pseudo[rows], operands, settings=settings, chunk_pixels=chunk_pixels
        )
        for column, values in zip(scores, better, strict=True):
            column[rows] = values


def _score_again_float64(
    scores: PlarScores,
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    settings: Settings,
    chunk_pixels: int,
) -> None:
    """Replaces flagged rows by their float64 scores; they stay flagged."""
    for rows in torch.split(scores.near_tie.nonzero()[:, 0], chunk_pixels):
        if not len(rows):
            continue
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


# --- distances -----------------------------------------------------------------------------------


def _distances(
    centred: Tensor,
    plan: _Plan,
    operands: PlarOperands,
    rounded: RoundedOperands | None,
    settings: Settings,
) -> Distances:
    points = centred if rounded is None else (centred * rounded.scale).to(rounded.dtype)
    slots = _norms(centred, points, plan, operands)
    own, mahalanobis = slots[0], slots[1:]
    euclid = _euclid(centred, own, plan, settings.tie)
    if rounded is None:
        return Distances(*euclid, *with_radius(mahalanobis, settings.tie))
    square = (centred * rounded.scale).square_()
    variance = rounded.variance.float() @ square.T + rounded.variance_offset[:, None]
    radius = mahalanobis_radius(mahalanobis, variance, rounded, settings.tie)
    return Distances(*euclid, mahalanobis, radius)


def mahalanobis_radius(
    mahalanobis: Tensor, variance: Tensor, rounded: RoundedOperands, tie: float
) -> Tensor:
    """Radius of squared distances whose whitened differences have this squared error.

    Products of halves that come back as bfloat16 add the rounding of each difference.
    """
    relative = tie + (2.0**-8 * rounded.error_factor if rounded.dtype is torch.bfloat16 else 0.0)
    spread = rounded.error_factor * (mahalanobis * variance).sqrt()
    return relative * (1 + mahalanobis) + spread + 4 * variance


def _euclid(centred: Tensor, own: Tensor, plan: _Plan, tie: float) -> tuple[Tensor, Tensor]:
    """Least squared distance [C, n] to the prototypes of each class, by the expanded form.

    |P x|^2 is common to all classes: its precision is that of the scores, not of their ranking.
    """
    classes = len(plan.norms)
    distance = plan.lengths - 2 * (plan.covectors @ centred.T)
    shape = (classes, len(plan.covectors) // classes, len(centred))
    distance = distance.view(shape).amin(1).add_(own).clamp_(min=0.0)
    size = torch.linalg.vector_norm(centred, dim=1)
    rounding = plan.lengths.view(classes, -1).amax(1)[:, None] + own + plan.norms * size
    return distance, tie * (1 + distance) + _FLAT_ERROR * rounding


def _norms(centred: Tensor, points: Tensor, plan: _Plan, operands: PlarOperands) -> Tensor:
    """Least squared norms [C + 1, n]: of the projected features, then of whitened differences."""
    classes, prototypes, _ = operands.bias.shape
    sums = torch.zeros(prototypes, classes + 1, len(points), device=points.device)
    for block in plan.blocks:
        gap = _products(points if block.weight.dtype is points.dtype else centred, block)
        inside = sums[:, block.slots]
        shape = (len(points), inside.shape[1], gap.shape[1] // inside.shape[1])
        inside[0] += torch.linalg.vector_norm(gap.view(shape), dim=2).square_().T
        for other, shift in enumerate(block.others, start=1):
            moved = (gap - shift).view(shape)
            inside[other] += torch.linalg.vector_norm(moved, dim=2).square_().T
    sums[1:, 0] = torch.inf  # the projection has one bias, zero
    return sums.amin(0)


def _products(points: Tensor, block: _Block) -> Tensor:
    """Whitened differences [n, rows] from prototype 0, in float32."""
    used = points[:, : block.columns]
    if points.dtype is torch.float32:
        return torch.addmm(block.bias, used, block.weight.T, beta=-1)
    if block.factor is not None:
        product = torch.mm(used, block.weight.T, out_dtype=torch.float32)
        return product.mul_(block.factor).sub_(block.bias)
    # the CPU returns halves: three columns of ones carry the bias, so only differences are rounded
    ones = points.new_ones(len(points), 3)
    return (torch.cat([used, ones], 1) @ block.weight.T).float()


def _make_plan(operands: PlarOperands, rounded: RoundedOperands | None, chunk_pixels: int) -> _Plan:
    classes, _, dim = operands.bias.shape
    pieces = _row_pieces(dim, operands.center.shape[0])
    longest = max(rows.stop - rows.start for rows, _ in pieces)
    step = max(1, _BLOCK_VALUES // (chunk_pixels * longest))
    groups = [slice(0, 1)]
    groups += [slice(c, min(c + step, classes + 1)) for c in range(1, classes + 1, step)]
    on_gpu = operands.center.device.type == "cuda"  # elsewhere float32 is cheap enough for one
    covectors = operands.means.double() @ operands.projection.double()
    return _Plan(
        blocks=[
            _float_block(operands, group, *piece)
            if rounded is None or (group.start == 0 and not on_gpu)
            else _half_block(rounded, group, *piece)
            for group in groups
            for piece in pieces
        ],
        covectors=covectors.flatten(0, 1).float(),
        lengths=operands.means.square().sum(2).view(-1, 1),
        norms=torch.linalg.vector_norm(covectors, dim=2).amax(1)[:, None].float(),
    )


def _float_block(operands: PlarOperands, slots: slice, rows: slice, columns: int) -> _Block:
    if slots.start == 0:
        weight = operands.projection[None, rows, :columns]
        bias = torch.zeros_like(operands.bias[:1, :1, rows])
    else:
        classes = slice(slots.start - 1, slots.stop - 1)
        weight = operands.whitening[classes, rows, :columns]
        bias = operands.bias[classes, :, rows]
    return _Block(slots, columns, weight.flatten(0, 1), None, *_bias(bias))


def _half_block(rounded: RoundedOperands, slots: slice, rows: slice, columns: int) -> _Block:
    """Weights are halves times a power of two; on the CPU both go into a bfloat16."""
    prototypes = 1 if slots.start == 0 else None
    first, others = _bias(rounded.bias[slots, :prototypes, rows])
    weight = rounded.matrices[slots, rows, :columns]
    factor = rounded.factor[slots, None].expand(weight.shape[:2]).flatten()
    weight = weight.flatten(0, 1)
    if weight.device.type == "cuda":
        return _Block(slots, columns, weight, factor, first, others)
    assert weight.dtype is torch.bfloat16, "the exponents of halves end too early"
    parts, rest = [], -first
    for _ in range(3):
        parts.append(rest.to(weight.dtype))
        rest = rest - parts[-1].float()
    weight = torch.cat([weight * factor[:, None].to(weight.dtype), torch.stack(parts, 1)], 1)
    return _Block(slots, columns, weight, None, first, others)


def _bias(bias: Tensor) -> tuple[Tensor, Tensor]:
    """Bias [C, K, rows] as [C x rows] of prototype 0, and of the others minus that."""
    flat = bias.transpose(0, 1).flatten(1)
    return flat[0], flat[1:] - flat[0]


def _row_pieces(dim: int, channels: int) -> list[tuple[slice, int]]:
    """Rows of the trapezoids with the columns they need; one piece where that saves little."""
    edges = [round(dim * part / _ROW_BLOCKS) for part in range(_ROW_BLOCKS + 1)]
    pieces = [
        (slice(low, high), min(channels, max(channels - dim, 0) + high))
        for low, high in pairwise(edges)
    ]
    needed = sum((rows.stop - rows.start) * columns for rows, columns in pieces)
    if dim < _ROW_BLOCKS * _LEAST_BLOCK or needed > (1 - _LEAST_SAVING) * dim * channels:
        return [(slice(0, dim), channels)]
    return pieces
