"""Mean and spread of bands, gathered piece by piece and merged without losing digits."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class BandMoments:
    """Count, mean, sum of squared deviations, least and greatest value of each band (float64)."""

    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def empty(cls, bands: int) -> Self:
        """Of no pixels."""
        zeros = (0.0,) * bands
        return cls(
            count=0, mean=zeros, m2=zeros, low=(math.inf,) * bands, high=(-math.inf,) * bands
        )

    @classmethod
    def of(cls, pixels: NDArray[np.float32]) -> Self:
        """Of finite pixels (band, pixel)."""
        if pixels.shape[1] == 0:
            return cls.empty(pixels.shape[0])
        exact = pixels.astype(np.float64)
        mean = exact.mean(axis=1)
        return cls(
            count=pixels.shape[1],
            mean=tuple(mean.tolist()),
            m2=tuple(np.square(exact - mean[:, np.newaxis]).sum(axis=1).tolist()),
            low=tuple(exact.min(axis=1).tolist()),
            high=tuple(exact.max(axis=1).tolist()),
        )

    def merge(self, other: Self) -> Self:
        """Of both sets of pixels (Chan, Golub and LeVeque 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = np.subtract(other.mean, self.mean)
        mean = self.mean + delta * (other.count / count)
        m2 = np.add(self.m2, other.m2) + delta**2 * (self.count * other.count / count)
        return type(self)(
            count=count,
            mean=tuple(mean.tolist()),
            m2=tuple(m2.tolist()),
            low=tuple(np.minimum(self.low, other.low).tolist()),
            high=tuple(np.maximum(self.high, other.high).tolist()),
        )

    def constant(self, band: int) -> bool:
        """True where the band has one value only, or no pixel."""
        return self.low[band] >= self.high[band]

    def std(self, band: int) -> float:
        """Standard deviation over all pixels; 1 for a constant band, so that scaling keeps it."""
        return 1.0 if self.constant(band) else math.sqrt(self.m2[band] / self.count)
