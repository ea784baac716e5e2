"""PLAR scores by chunks of pixels in plain torch: the same code on CPU and GPU.

Float32: features are centred first, so nothing is lost that a decision could notice. Half
precision: see `rounding`. Pixels whose comparisons are closer than the radii of their errors are
scored again in float64. Decisions therefore depend neither on the precision nor on the chunk size
nor on the order of the pixels.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from geohsal.kernels.plar.decision import Distances, Settings, decide
from geohsal.kernels.plar.operands import PlarOperands, PlarScores
from geohsal.kernels.plar.reference import centre, reference_scores, with_radius
from geohsal.kernels.plar.rounding import ERROR_REACH, RoundedOperands
from geohsal.kernels.precision import full_precision

_BLOCK_VALUES = 1 << 22
"""Most values of whitened differences at a time: 16 MiB in float32, so that they stay in cache."""

_GPU_BLOCK_VALUES = 1 << 26
"""The same on a GPU: 256 MiB, so that launches do not outweigh the work."""

_LEAST_GPU_CHUNK = 1 << 16

_FLAT_ERROR = 2e-6
"""Error of expanded Euclidean distances in float32, relative to the squared lengths."""

_SUM_ERROR = 2.0**-22
"""Error of a float32 sum of products, relative to the lengths of its factors."""

_ROW_BLOCKS = 4
_LEAST_SAVING = 0.15
_LEAST_BLOCK = 16


class _Block(NamedTuple):
    """Rows of some matrices that read the first `columns` features."""

    slots: slice  # 0 is the projection, c + 1 the whitening of class c
    prototype: int  # whose bias is taken off first
    columns: int
    weight: Tensor  # [rows, columns], rows matrix by matrix
    factor: Tensor | None  # [rows], undoes the scale of half-precision weights
    bias: Tensor  # [rows], of that prototype
    others: list[Tensor]  # [rows] each: bias of the prototypes after it minus that


class _Plan(NamedTuple):
    """Operands in the order in which a chunk meets them."""

    blocks: list[_Block]
    covectors: Tensor  # [C x K, F], prototypes of the Euclidean space
    lengths: Tensor  # [C x K, 1], their squared lengths in that space
    norms: Tensor  # [C, 1], longest covector
    sizes: Tensor  # [C, 1], Frobenius norm of each whitening matrix


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
    if features.is_cuda:
        chunk_pixels = max(chunk_pixels, _LEAST_GPU_CHUNK)
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
        score_again(
            scores, features, pseudo, operands, settings=settings, chunk_pixels=chunk_pixels
        )
    return scores


def score_again(
    scores: PlarScores,
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    settings: Settings,
    chunk_pixels: int,
) -> None:
    """Replaces flagged rows by their float64 scores and flags."""
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
        for column, values in zip(scores, exact, strict=True):
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
    size = torch.linalg.vector_norm(centred, dim=1)
    euclid = _euclid(centred, own, plan, size, settings.tie)
    radius = with_radius(mahalanobis, settings.tie)[1]
    sums = plan.sizes * size * _SUM_ERROR  # of W x before the bias is taken off
    radius = radius + sums * (2 * mahalanobis.sqrt() + sums)
    if rounded is None:
        return Distances(*euclid, mahalanobis, radius)
    square = (centred * rounded.scale).square_()
    variance = rounded.variance.float() @ square.T + rounded.variance_offset[:, None]
    if rounded.dtype is torch.bfloat16:  # so are the differences that come back
        variance = variance + 2.0**-16 * mahalanobis
    error = ERROR_REACH * variance.sqrt()
    radius = radius + error * (2 * mahalanobis.sqrt() + error)
    return Distances(*euclid, mahalanobis, radius)


def _euclid(
    centred: Tensor, own: Tensor, plan: _Plan, size: Tensor, tie: float
) -> tuple[Tensor, Tensor]:
    """Least squared distance [C, n] to the prototypes of each class, by the expanded form.

    |P x|^2 is common to all classes: its precision is that of the scores, not of their ranking.
    """
    classes = len(plan.norms)
    distance = plan.lengths - 2 * (plan.covectors @ centred.T)
    shape = (classes, len(plan.covectors) // classes, len(centred))
    distance = distance.view(shape).amin(1).add_(own).clamp_(min=0.0)
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
        inside[block.prototype] += torch.linalg.vector_norm(gap.view(shape), dim=2).square_().T
        for other, shift in enumerate(block.others, start=block.prototype + 1):
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
    on_gpu = operands.center.device.type == "cuda"  # elsewhere float32 is cheap enough for one
    pieces = _row_pieces(dim, operands.center.shape[0])
    longest = max(rows.stop - rows.start for rows, _ in pieces)
    values = _GPU_BLOCK_VALUES if on_gpu else _BLOCK_VALUES
    step = max(1, values // (chunk_pixels * longest))
    groups = [slice(0, 1)]
    groups += [slice(c, min(c + step, classes + 1)) for c in range(1, classes + 1, step)]
    covectors = operands.means.double() @ operands.projection.double()
    return _Plan(
        blocks=[
            block
            for group in groups
            for piece in pieces
            for block in (
                [_float_block(operands, group, *piece)]
                if rounded is None or (group.start == 0 and not on_gpu)
                else _half_blocks(rounded, group, *piece)
            )
        ],
        covectors=covectors.flatten(0, 1).float(),
        lengths=operands.means.square().sum(2).view(-1, 1),
        norms=torch.linalg.vector_norm(covectors, dim=2).amax(1)[:, None].float(),
        sizes=torch.linalg.vector_norm(operands.whitening, dim=(1, 2))[:, None],
    )


def _float_block(operands: PlarOperands, slots: slice, rows: slice, columns: int) -> _Block:
    if slots.start == 0:
        weight = operands.projection[None, rows, :columns]
        bias = torch.zeros_like(operands.bias[:1, :1, rows])
    else:
        classes = slice(slots.start - 1, slots.stop - 1)
        weight = operands.whitening[classes, rows, :columns]
        bias = operands.bias[classes, :, rows]
    first, *others = bias.transpose(0, 1).flatten(1)
    return _Block(
        slots, 0, columns, weight.flatten(0, 1), None, first, [other - first for other in others]
    )


def _half_blocks(rounded: RoundedOperands, slots: slice, rows: slice, columns: int) -> list[_Block]:
    """One block; on the CPU, where differences come back as halves, one per prototype."""
    prototypes = 1 if slots.start == 0 else None
    biases = list(rounded.bias[slots, :prototypes, rows].transpose(0, 1).flatten(1))
    weight = rounded.matrices[slots, rows, :columns]
    factor = rounded.factor[slots, None].expand(weight.shape[:2]).flatten()
    weight = weight.flatten(0, 1)
    if weight.device.type == "cuda":
        others = [bias - biases[0] for bias in biases[1:]]
        return [_Block(slots, 0, columns, weight, factor, biases[0], others)]
    assert weight.dtype is torch.bfloat16, "the exponents of halves end too early"
    scaled = weight * factor[:, None].to(weight.dtype)  # by powers of two: exact
    return [
        _Block(slots, number, columns, torch.cat([scaled, _parts(bias)], 1), None, bias, [])
        for number, bias in enumerate(biases)
    ]


def _parts(bias: Tensor) -> Tensor:
    """Minus a bias [rows] as the sum of three bfloat16 [rows, 3]."""
    parts, rest = [], -bias
    for _ in range(3):
        parts.append(rest.bfloat16())
        rest = rest - parts[-1].float()
    return torch.stack(parts, 1)


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
