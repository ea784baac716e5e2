"""The shift of the logits towards the class shares of the pool, or even ones, while training.

What a network was taught is measured where people have labelled. The student also learns shifted
pseudo-labels, which moves it a little towards the pool by itself: one more reason for a strength
below 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.config import PriorConfig
from geohsal.models.tsf import InferenceNetworks
from geohsal.refine.priors import (
    FLOOR,
    AnsweredRound,
    PoolPriors,
    known_priors,
    prior_shift,
    priors_by_em,
)
from geohsal.refine.statistics import LabelledPixels


@dataclass(slots=True, kw_only=True)
class PriorTracker:
    """Sets the networks' prior shift at every refresh.

    `rounds` are the answered rounds so far, `look_at_pool` gives probabilities [n, C] of pool
    pixels (asked for by source em alone). `priors`, `shift` and the shares that the teacher
    believes in, `taught`, are what was found last.
    """

    config: PriorConfig
    rounds: Sequence[AnsweredRound]
    look_at_pool: Callable[[InferenceNetworks], NDArray[np.float32]]
    priors: PoolPriors = field(
        default_factory=lambda: PoolPriors(share=None, source="none", reason="not looked at")
    )
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    taught: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def update(self, networks: InferenceNetworks, pixels: LabelledPixels) -> LabelledPixels:
        """Estimate anew, set the shift, and give the pixels back as they look under it.

        Only the error mask's score stays what it was under the shift before; where that matters,
        collect again.

        Args:
            networks: whose `prior_shift` is set in place.
            pixels: the labelled pixels as these networks see them, with probabilities.
        """
        assert pixels.probabilities is not None, "collected without"
        present = networks.prior_shift.detach().cpu().double().numpy()
        self.taught, labelled = _taught(pixels, present)
        self.priors = self._estimate(networks, self.taught, present)
        self.shift = prior_shift(self.priors, self.taught, labelled=labelled, config=self.config)
        networks.prior_shift.copy_(torch.from_numpy(self.shift))
        seen = unshifted(pixels.probabilities, present - self.shift)
        return replace(
            pixels,
            probabilities=seen.astype(np.float32),
            teacher=seen.argmax(axis=1),
            confidence=seen.max(axis=1),
        )

    def can_shift(self, classes: int) -> bool:
        """Whether `update` may set another shift than 0; looks at no pixel."""
        if self.config.source == "em":
            return True
        return known_priors(self.config, self.rounds, classes=classes).share is not None

    def _estimate(
        self, networks: InferenceNetworks, taught: NDArray[np.float64], present: NDArray[np.float64]
    ) -> PoolPriors:
        if self.config.source == "em":
            pool = self.look_at_pool(networks)
            if len(pool) == 0:
                reason = "no valid train pixel in the windows that were drawn"
                return PoolPriors(share=None, source="no evidence", reason=reason)
            return priors_by_em(unshifted(pool, present), taught)
        return known_priors(self.config, self.rounds, classes=len(taught))

    def log_share(self) -> NDArray[np.float64] | None:
        """[C] logarithms of the pool's class shares; None without evidence."""
        if self.priors.share is None:
            return None
        return np.asarray(np.log(self.priors.share + FLOOR), dtype=np.float64)


def unshifted(
    probabilities: NDArray[np.floating], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities [n, C] as they would be without a shift [C] of the logits."""
    raw = probabilities.astype(np.float64) * np.exp(-shift)
    return np.asarray(raw / raw.sum(axis=1, keepdims=True), dtype=np.float64)


def _taught(
    pixels: LabelledPixels, shift: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mean unshifted probability [C] where the supervised loss looks, and classes seen there."""
    assert pixels.probabilities is not None, "collected without"
    assert pixels.weight is not None, "collected without"
    known = np.isfinite(pixels.probabilities).all(axis=1)
    learnt = known & ~pixels.withheld if (known & ~pixels.withheld).any() else known
    weight = pixels.weight[learnt]
    mean = weight @ unshifted(pixels.probabilities[learnt], shift) / weight.sum()
    labelled = np.bincount(pixels.label, minlength=len(shift)) > 0
    return np.asarray(mean, dtype=np.float64), labelled
