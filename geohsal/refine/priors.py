"""Class priors of the pool: how common each class is where nobody has labelled.

An analyst's polygons are balanced by class, and queried regions are the hard ones; scenes are
neither. A network believes in the shares it was taught, so its posteriors are shifted by the log
ratio of the pool's shares to those (Saerens, Latinne and Decaestecker 2002, equation 2.4). The
pool's shares are a post-stratified estimate: the strata are the classes that the teacher named
when a round was queried, whose sizes are known exactly, and the sample are the answered regions.
Questions go to hard regions, so within a stratum the shares lean towards what those hold; only with
random questions are they unbiased.

Even shares aim at another map: one that is right as often in every class, as mIoU counts. The same
shift then takes the taught shares out of the logits (logit adjustment: Menon et al. 2021,
arXiv 2007.07314, applied post hoc, tau = strength).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geohsal.config import PriorConfig

_Array = NDArray[np.float64]

TRUST_REGIONS = 3.0
"""Regions that a stratum must have been answered for before answers outweigh the teacher."""

FLOOR = 5e-3
"""Share added to every class before logarithms: no class is shifted by more than 1/FLOOR."""

_EM_TURNS = 200
_EM_REGIONS = 20.0  # pseudo-count of uniform shares per class, in pixels of a thousand


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredRound:
    """What one answered round says about the pool; C classes.

    `predicted` [C] pool pixels by the teacher's class when the round was queried, `answered`
    [C, C] pixels by that class and by the person's, `regions` how many regions hold them.
    """

    predicted: NDArray[np.int64]
    answered: NDArray[np.int64]
    regions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolPriors:
    """Estimated class shares [C] of the pool; `share` None: no evidence, nothing is shifted."""

    share: _Array | None
    source: str
    reason: str


def priors_from_answers(rounds: Sequence[AnsweredRound], *, min_regions: int) -> PoolPriors:
    """Post-stratified shares, rounds weighted by their regions.

    A stratum with few answered regions is taken to be what the teacher named: each stratum starts
    with `TRUST_REGIONS` regions of it.
    """
    regions = sum(item.regions for item in rounds)
    if regions < min_regions:
        reason = f"{regions} answered regions, {min_regions} are needed"
        return PoolPriors(share=None, source="no evidence", reason=reason)
    share = sum(item.regions * _post_stratified(item) for item in rounds) / regions
    reason = f"{regions} answered regions of {len(rounds)} rounds"
    return PoolPriors(share=np.asarray(share), source="answers", reason=reason)


def _post_stratified(found: AnsweredRound) -> _Array:
    per_region = max(1.0, float(found.answered.sum()) / max(1, found.regions))
    counts = found.answered / per_region
    trusted = counts + TRUST_REGIONS * np.eye(len(counts))
    of_stratum = trusted / trusted.sum(axis=1, keepdims=True)
    strata = found.predicted / max(1, int(found.predicted.sum()))
    return np.asarray(strata @ of_stratum, dtype=np.float64)


def known_priors(
    config: PriorConfig, rounds: Sequence[AnsweredRound], *, classes: int
) -> PoolPriors:
    """The shares that a source gives without a look at the pool, which em needs.

    Args:
        config: source, and how many answered regions it needs.
        rounds: the answered ones.
        classes: C.
    """
    if config.source == "answers":
        return priors_from_answers(rounds, min_regions=config.min_regions)
    reason = f"prior.source is {config.source}"
    if config.source == "uniform":
        return PoolPriors(share=np.full(classes, 1.0 / classes), source="uniform", reason=reason)
    return PoolPriors(share=None, source="off", reason=reason)


def priors_by_em(probabilities: _Array, taught: _Array) -> PoolPriors:
    """Shares that make the mean posterior of pool pixels agree with themselves (EM).

    Args:
        probabilities: [n, C] of the network at pixels drawn from the pool.
        taught: [C] shares that the network believes in.

    Uniform pseudo-counts keep a class from vanishing. EM assumes that classes look in the pool
    as they did in the labels; where they do not it can be far off, so it is not the default.
    """
    classes = probabilities.shape[1]
    share = taught / taught.sum()
    taught = share
    for _ in range(_EM_TURNS):
        posterior = probabilities * (share / np.maximum(taught, 1e-12))
        posterior /= posterior.sum(axis=1, keepdims=True)
        share = (1000 * posterior.mean(axis=0) + _EM_REGIONS) / (1000 + _EM_REGIONS * classes)
    reason = f"expectation maximisation over {len(probabilities)} pool pixels"
    return PoolPriors(share=share, source="em", reason=reason)


def prior_shift(
    priors: PoolPriors, taught: _Array, *, labelled: NDArray[np.bool_], config: PriorConfig
) -> _Array:
    """What is added to the logits [C]: strength x log(pool share / taught share), mean free.

    Args:
        priors: of the pool.
        taught: [C] shares that the network believes in: its mean probability where people have
            labelled.
        labelled: [C] classes that have labels; the others are not shifted.
        config: strength.
    """
    shift = np.zeros(len(taught))
    if priors.share is None or not labelled.any():
        return shift
    ratio = np.log(priors.share + FLOOR) - np.log(taught / taught.sum() + FLOOR)
    shift[labelled] = config.strength * (ratio[labelled] - ratio[labelled].mean())
    return shift
