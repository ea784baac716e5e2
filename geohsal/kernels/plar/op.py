"""The torch custom op `geohsal::plar_scores` and its public wrapper.

A device kernel is added with `plar_scores_op.register_kernel("cuda")`; it must give what
`reference_scores` gives, decisions included, outside the pixels that it flags as near ties.
"""

import torch
from torch import Tensor

from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.operands import PlarOperands, PlarScores, Rule
from geohsal.kernels.plar.reference import DEFAULT_TIE
from geohsal.kernels.plar.torch_path import chunked_scores

_Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("geohsal::plar_scores", mutates_args=())
def plar_scores_op(
    features: Tensor,
    pseudo: Tensor,
    center: Tensor,
    projection: Tensor,
    means: Tensor,
    whitening: Tensor,
    bias: Tensor,
    logdet: Tensor,
    log_prior: Tensor,
    gate: Tensor,
    gated: Tensor,
    margin: Tensor,
    support: Tensor,
    abstain: Tensor,
    scale: float,
    rule: int,
    agreement: bool,
    tie: float,
    chunk_pixels: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Shapes are those of `PlarOperands`; the outputs are the fields of `PlarScores`."""
    operands = PlarOperands(
        center=center,
        projection=projection,
        means=means,
        whitening=whitening,
        bias=bias,
        logdet=logdet,
        log_prior=log_prior,
        gate=gate,
        gated=gated,
        margin=margin,
        support=support,
        abstain=abstain,
        scale=scale,
    )
    settings = Settings(Rule(rule), agreement, tie)
    return chunked_scores(features, pseudo, operands, settings=settings, chunk_pixels=chunk_pixels)


@plar_scores_op.register_fake
def _(features: Tensor, *operands: object) -> _Outputs:
    pixels = features.shape[0]
    code = features.new_empty(pixels, dtype=torch.uint8)
    pair = features.new_empty(pixels, 2, dtype=torch.float32)
    classes = features.new_empty(pixels, 2, dtype=torch.uint8)
    single = features.new_empty(pixels, dtype=torch.float32)
    near = features.new_empty(pixels, dtype=torch.bool)
    return (
        classes,
        pair,
        torch.empty_like(classes),
        torch.empty_like(pair),
        code,
        single,
        torch.empty_like(code),
        near,
    )


def plar_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    rule: Rule = Rule.ROBUST,
    agreement: bool = False,
    tie: float = DEFAULT_TIE,
    chunk_pixels: int = 4096,
) -> PlarScores:
    """Scores and decision codes of raw features [N, F] with pseudo-labels [N].

    Args:
        features: any float type, on the operands' device; non-finite rows come back INVALID.
        pseudo: integer class ids of the teacher.
        operands: constants made by `fold_operands`.
        rule: which ranking chooses the class, and what accepts it.
        agreement: robust rule only: the class must be among the two nearest by Euclid.
        tie: relative width of the band in which comparisons are repeated in float64.
        chunk_pixels: pixels scored at a time.
    """
    outputs = plar_scores_op(
        features,
        pseudo,
        *operands.tensors().values(),
        operands.scale,
        int(rule),
        agreement,
        tie,
        chunk_pixels,
    )
    return PlarScores(*outputs)
