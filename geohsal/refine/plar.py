"""Pseudo-label auto-refinement: suspects in, refined labels and pixel states out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geohsal.config import PlarConfig
from geohsal.errors import ModelError
from geohsal.geo.states import PixelState
from geohsal.kernels.knn import KnnOperands, KnnScores, knn_scores, require_backend
from geohsal.kernels.plar import (
    NO_CLASS,
    Decision,
    Kernel,
    PlarOperands,
    PlarScores,
    Prepared,
    Rule,
    fold_operands,
    plar_scores,
    prepare,
    resolve_kernel,
)
from geohsal.refine.neighbours import knn_operands
from geohsal.refine.statistics import ClassStatistics
from geohsal.refine.thresholds import Thresholds

_STATE_OF = {
    Decision.INVALID: PixelState.NOVEL,  # a valid pixel with features like nothing known
    Decision.CONFIRMED: PixelState.CONFIRMED,
    Decision.CORRECTED: PixelState.CORRECTED,
    Decision.AMBIGUOUS: PixelState.AMBIGUOUS,
    Decision.NOVEL: PixelState.NOVEL,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refinement:
    """Refined pseudo-labels of N pixels.

    `plar_class` is 255 and `margin` 0 where PLAR did not look (trusted pixels) or found nothing.
    Undecided pixels keep the teacher's label.
    """

    labels: Tensor  # [N], type of the pseudo-labels
    states: Tensor  # [N] uint8, PixelState
    plar_class: Tensor  # [N] uint8
    margin: Tensor  # [N] float32, second score minus best


def operands_of(
    statistics: ClassStatistics, thresholds: Thresholds, config: PlarConfig
) -> PlarOperands | KnnOperands:
    """Constants of the configured rule's operator.

    Raises:
        ModelError: the statistics are of a rule that they cannot be used without.
    """
    if config.rule == "knn":
        return knn_operands(statistics, thresholds, config)
    if config.rule != "none" and len(statistics.bank):
        raise ModelError(
            f"class statistics: made for plar.rule=knn, whose thresholds mean nothing to plar.rule="
            f"{config.rule}; train again with plar.rule={config.rule}"
        )
    return plar_operands(statistics, thresholds, config)


def plar_operands(
    statistics: ClassStatistics, thresholds: Thresholds, config: PlarConfig
) -> PlarOperands:
    """Constants of the operator; the same for all pixels until statistics are refreshed.

    The Euclidean space is that of the components for the faithful rule, and the pooled-whitened
    one for the robust rule. Priors are those of the statistics: the pool's where answers have shown
    them, else uniform over the classes that have labels.
    """
    tensors = {name: tensor.double() for name, tensor in statistics.to_tensors().items()}
    limits = thresholds.to_tensors()
    dim = statistics.dim
    faithful = config.rule == "faithful"
    return fold_operands(
        center=tensors["center"],
        projection=tensors["projection"],
        feature_means=tensors["feature_means"],
        whitening=tensors["whitening"],
        euclid=torch.eye(dim, dtype=torch.float64) if faithful else tensors["pooled_whitening"],
        logdet=tensors["logdet"],
        log_prior=torch.from_numpy(statistics.log_priors),
        gate=limits["gate"],
        gated=limits["gated"],
        margin=limits["margin"],
        support=torch.from_numpy(statistics.supported(config.min_regions)),
        abstain=limits["abstain"],
        scale=float(statistics.scale[0]),
    )


def prepare_operands(operands: PlarOperands | KnnOperands, config: PlarConfig) -> Prepared | None:
    """The form in which the configured kernel takes operands; None where they are taken as is.

    Raises:
        KernelError: the kernel cannot run on their device.
    """
    if isinstance(operands, KnnOperands):
        return None
    return prepare(operands, Kernel(config.kernel))


def require_kernel(config: PlarConfig, device: torch.device) -> None:
    """Ask for the configured kernel before anything is computed.

    Raises:
        KernelError: it cannot run on this device.
    """
    if config.rule == "knn":
        require_backend(config.knn_backend, device)
    elif config.rule != "none":
        resolve_kernel(Kernel(config.kernel), device)


def score(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands | KnnOperands,
    config: PlarConfig,
    *,
    prepared: Prepared | None = None,
) -> PlarScores | KnnScores:
    """Scores under the configured rule; rule `none` scores as robust.

    Without `prepared` the scores have float32 precision, as thresholds need it on every machine.
    """
    if isinstance(operands, KnnOperands):
        return knn_scores(
            features,
            pseudo,
            operands,
            backend=config.knn_backend,
            chunk_pixels=config.chunk_pixels,
        )
    return plar_scores(
        features,
        pseudo,
        operands,
        rule=Rule.FAITHFUL if config.rule == "faithful" else Rule.ROBUST,
        agreement=config.agreement,
        chunk_pixels=config.chunk_pixels,
        kernel=Kernel.TORCH,
        prepared=prepared,
    )


def margin_of(scores: PlarScores | KnnScores, config: PlarConfig) -> Tensor:
    """Lead [N] of the best class over the second under the rule's ranking; 0 without a second."""
    ranked = scores.q
    if config.rule == "faithful" and isinstance(scores, PlarScores):
        ranked = scores.euclid
    lead = ranked[:, 1] - ranked[:, 0]
    return torch.where(torch.isfinite(lead), lead, 0.0)


def refine(
    features: Tensor,
    pseudo: Tensor,
    suspect: Tensor,
    statistics: ClassStatistics,
    thresholds: Thresholds,
    config: PlarConfig,
    *,
    operands: PlarOperands | KnnOperands | None = None,
    prepared: Prepared | None = None,
) -> Refinement:
    """Labels and states of features [N, F] with pseudo-labels [N]; only suspects are looked at.

    With rule `none` nothing is refined: suspects are AMBIGUOUS.

    Args:
        features: raw decoder features.
        pseudo: the teacher's class ids.
        suspect: [N] bool, error probability at or above the suspect threshold.
        statistics: of the round.
        thresholds: of the round.
        config: PLAR settings.
        operands: `operands_of` these three on the features' device, to save their making.
        prepared: `prepare` of the operands; without it the kernel that the settings name is.

    Raises:
        KernelError: the kernel cannot run on this device.
    """
    states = torch.full_like(pseudo, int(PixelState.TRUSTED), dtype=torch.uint8)
    plar_class = torch.full_like(states, NO_CLASS)
    margin = torch.zeros_like(states, dtype=torch.float32)
    labels = pseudo.clone()
    if config.rule == "none":
        states[suspect] = int(PixelState.AMBIGUOUS)
        return Refinement(labels=labels, states=states, plar_class=plar_class, margin=margin)
    rows = suspect.nonzero()[:, 0]
    if operands is None:
        operands = operands_of(statistics, thresholds, config).to(features.device)
    if prepared is None:
        prepared = prepare_operands(operands, config)
    scores = score(features[rows], pseudo[rows], operands, config, prepared=prepared)
    states[rows] = _states(scores.code)
    plar_class[rows] = scores.chosen
    margin[rows] = margin_of(scores, config)
    corrected = rows[scores.code == int(Decision.CORRECTED)]
    labels[corrected] = plar_class[corrected].to(labels.dtype)
    if prepared is not None and prepared.kernel is not Kernel.TORCH:
        # a scene's caps rank corrections by margin: the same on every machine
        exact = score(features[corrected], pseudo[corrected], operands, config)
        margin[corrected] = margin_of(exact, config)
    return Refinement(labels=labels, states=states, plar_class=plar_class, margin=margin)


def _states(code: Tensor) -> Tensor:
    table = torch.zeros(len(_STATE_OF), dtype=torch.uint8, device=code.device)
    for decision, state in _STATE_OF.items():
        table[int(decision)] = int(state)
    return table[code.long()]
