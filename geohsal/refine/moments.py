"""Streaming count, mean and scatter in float64; any order of updates and merges agrees to 1e-9."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Count n, mean [F] and scatter [F, F] (sum of outer products about the mean) of rows."""

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def empty(cls, channels: int) -> Self:
        return cls(count=0, mean=np.zeros(channels), scatter=np.zeros((channels, channels)))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Self:
        """Moments of rows [n, F]."""
        if len(rows) == 0:
            return cls.empty(rows.shape[1])
        values = rows.astype(np.float64)
        mean = values.mean(0)
        centred = values - mean
        return cls(count=len(rows), mean=mean, scatter=centred.T @ centred)

    def update(self, rows: NDArray[np.floating]) -> Self:
        """Moments with more rows [n, F]."""
        return self.merge(type(self).of(rows))

    def merge(self, other: Self) -> Self:
        """Moments of both samples together (Chan, Golub and LeVeque)."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        gap = other.mean - self.mean
        weight = self.count * other.count / count
        return type(self)(
            count=count,
            mean=self.mean + gap * (other.count / count),
            scatter=self.scatter + other.scatter + weight * np.outer(gap, gap),
        )

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Maximum-likelihood covariance [F, F]; zero for fewer than two rows."""
        return self.scatter / max(self.count, 1)
