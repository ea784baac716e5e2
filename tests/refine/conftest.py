"""A world of classes in feature space: regions with their own shift, heavy tails."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from geohsal.refine.statistics import LabelledPixels

DIM = 32


@dataclass(slots=True, kw_only=True)
class World:
    """Classes with random means and covariances; `tails` are degrees of freedom of Student's t."""

    rng: np.random.Generator
    classes: int
    separation: float = 0.45
    anisotropy: float = 0.7
    between: float = 0.3  # share of variance between regions
    tails: float = 5.0
    means: NDArray[np.float64] = field(init=False)
    maps: list[NDArray[np.float64]] = field(init=False)

    def __post_init__(self) -> None:
        self.means = self.rng.normal(size=(self.classes, DIM)) * self.separation
        self.maps = [self._map() for _ in range(self.classes)]

    def _map(self) -> NDArray[np.float64]:
        axes, _ = np.linalg.qr(self.rng.normal(size=(DIM, DIM)))
        return axes * np.exp(self.rng.normal(size=DIM) * self.anisotropy)

    def _noise(self, count: int) -> NDArray[np.float64]:
        heat = np.sqrt(self.rng.chisquare(self.tails, size=(count, 1)) / self.tails)
        return self.rng.normal(size=(count, DIM)) / heat

    def draw(self, number: int, *, regions: int, per_region: int) -> NDArray[np.float32]:
        """Features [regions x per_region, DIM] of one class, region by region."""
        shift = np.repeat(self._noise(regions), per_region, axis=0)
        own = self._noise(regions * per_region)
        mixed = np.sqrt(self.between) * shift + np.sqrt(1 - self.between) * own
        return (self.means[number] + mixed @ self.maps[number].T).astype(np.float32)


@pytest.fixture
def make_world() -> Callable[..., World]:
    def make(seed: int = 0, *, classes: int = 6, **options: float) -> World:
        return World(rng=np.random.default_rng(seed), classes=classes, **options)

    return make


@pytest.fixture
def label_world() -> Callable[..., LabelledPixels]:
    return _labelled


def _labelled(
    world: World,
    *,
    known: int,
    regions: int = 40,
    per_region: int = 30,
    withheld: float = 0.2,
    wrong: float = 0.3,
    good_errors: bool = True,
) -> LabelledPixels:
    """Labels of the first `known` classes, with a teacher that errs on a share `wrong`."""
    rng = world.rng
    parts = [world.draw(c, regions=regions, per_region=per_region) for c in range(known)]
    label = np.repeat(np.arange(known), regions * per_region)
    region = np.repeat(np.arange(known * regions), per_region)
    count = len(label)
    errs = rng.random(count) < wrong
    teacher = np.where(errs, (label + rng.integers(1, known, count)) % known, label)
    noise = rng.normal(size=count) * 0.2
    error = np.where(errs & good_errors, 0.7, 0.3) + noise
    return LabelledPixels(
        features=np.concatenate(parts),
        label=label,
        region=region,
        withheld=(region % regions) < round(withheld * regions),
        teacher=teacher,
        confidence=np.where(errs, rng.uniform(0.4, 0.95, count), rng.uniform(0.6, 1.0, count)),
        error=np.clip(error, 0, 1),
    )
