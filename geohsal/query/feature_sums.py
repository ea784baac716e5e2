"""Exact sums of features over numbered pixels, made on the device where the features are.

Only the sums reach the host. Values are rounded to multiples of STEP first, which float64 adds
exactly in any order, so the cut of a scene into windows changes no bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEP = 2.0**-24
"""Values are summed in multiples of this."""

EMBEDDING_DIMENSIONS = 256
"""Gradient embeddings with more numbers than this are projected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSums:
    """Sums of features by number: `numbers` (n) rise, `pixels` (n), `sums` (feature, n)."""

    numbers: NDArray[np.int64]
    pixels: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float32]:
        """(n, feature) mean features, in the order of numbers."""
        return np.ascontiguousarray((self.sums / self.pixels).T, dtype=np.float32)


def merge_sums(parts: Sequence[FeatureSums]) -> FeatureSums:
    """Sums over all parts together; the order of the parts changes nothing."""
    numbers = np.unique(np.concatenate([part.numbers for part in parts]))
    pixels = np.zeros(len(numbers), dtype=np.int64)
    sums = np.zeros((len(parts[0].sums), len(numbers)))
    for part in parts:
        place = np.searchsorted(numbers, part.numbers)
        pixels[place] += part.pixels
        sums[:, place] += part.sums
    return FeatureSums(numbers=numbers, pixels=pixels, sums=sums)


def sum_features(
    features: Tensor, numbers: NDArray[np.integer], where: NDArray[np.bool_]
) -> FeatureSums:
    """Sums of features over the pixels of each number.

    Args:
        features: (feature, row, col) on any device.
        numbers: (row, col) what the pixels are counted under.
        where: (row, col) pixels that count.
    """
    found, place = np.unique(numbers[where], return_inverse=True)
    groups = np.full(where.shape, len(found), dtype=np.int64)  # what does not count comes last
    groups[where] = place.reshape(-1)
    pixels = np.bincount(groups.ravel(), minlength=len(found) + 1)[: len(found)]
    group = torch.from_numpy(groups.ravel()).to(features.device)
    sums = np.zeros((len(features), len(found)))
    for index, feature in enumerate(features if len(found) else ()):
        exact = feature.double().mul_(1 / STEP).round_().flatten()
        total = torch.bincount(group, exact, minlength=len(found) + 1)
        sums[index] = total[: len(found)].cpu().numpy() * STEP
    return FeatureSums(numbers=found.astype(np.int64), pixels=pixels, sums=sums)


def sum_gradients(
    features: Tensor,
    probabilities: Tensor,
    numbers: NDArray[np.integer],
    where: NDArray[np.bool_],
    *,
    seed: int,
) -> FeatureSums:
    """Sums of gradient embeddings (p - onehot(argmax p)) x feature (BADGE, Ash et al. 2020).

    That is the gradient of the cross-entropy towards the likeliest class, in the weights of a
    linear head. Where classes times features exceed EMBEDDING_DIMENSIONS, a fixed random
    projection with entries +-1 (Achlioptas 2003) keeps distances nearly; it adds multiples of
    STEP, so it is exact too.

    Args:
        features: (feature, row, col).
        probabilities: (class, row, col).
        numbers: (row, col) what the pixels are counted under.
        where: (row, col) pixels that count.
        seed: of the projection.
    """
    found, place, pixels = np.unique(numbers[where], return_inverse=True, return_counts=True)
    order = np.flatnonzero(where)[np.argsort(place.reshape(-1), kind="stable")]
    ends = np.cumsum(pixels)
    gradient = probabilities - (probabilities.max(dim=0).indices == _classes(probabilities)).float()
    flat, gradient = features.flatten(1), gradient.flatten(1)
    sums = np.zeros((len(gradient) * len(flat), len(found)))
    for index, (start, end) in enumerate(zip(ends - pixels, ends, strict=True)):
        own = torch.from_numpy(order[start:end]).to(features.device)
        products = _coarse(gradient[:, own]) @ _coarse(flat[:, own]).T
        sums[:, index] = products.flatten().cpu().numpy()
    if len(sums) > EMBEDDING_DIMENSIONS:
        sums = projection(len(sums), seed=seed) @ sums
    return FeatureSums(numbers=found.astype(np.int64), pixels=pixels, sums=sums)


def _classes(probabilities: Tensor) -> Tensor:
    return torch.arange(len(probabilities), device=probabilities.device)[:, None, None]


def _coarse(values: Tensor) -> Tensor:
    """Multiples of the root of STEP: their products add exactly too."""
    return values.double().div_(STEP**0.5).round_().mul_(STEP**0.5)


def projection(columns: int, *, seed: int) -> NDArray[np.float64]:
    """(EMBEDDING_DIMENSIONS, columns) entries +-1; the same for the same seed."""
    rng = np.random.default_rng([seed, columns])
    signs = rng.integers(0, 2, size=(EMBEDDING_DIMENSIONS, columns))
    return signs.astype(np.float64) * 2 - 1
