"""A share of pixels whose evidence is regions: pixels of one region resemble each other.

The interval is Wilson's at the effective number of pixels (Korn and Graubard 1998, doi:
10.1002/sim.4780170803, with Wilson's bounds for theirs): the variance of the share between
regions, by the ratio estimator of cluster samples, tells how many independent pixels would be as
informative; Student's t of the regions' degrees of freedom stands in for the normal quantile. A few
regions often agree by chance where errors are rare, so none counts as more than two pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from geohsal.refine.evidence import wilson_lower, wilson_upper

_TWO_SIDED = 0.975
_MOST_PER_REGION = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionShare:
    """`hits` of `pixels` in `regions` regions; `low` to `high` is a 95 % interval by regions."""

    hits: int
    pixels: int
    regions: int
    share: float
    low: float
    high: float


def region_share(hits: ArrayLike, pixels: ArrayLike) -> RegionShare | None:
    """The share of `hits` among `pixels`, one number of each per region; None without pixels.

    Regions without pixels say nothing and do not count. Without any variance (no hit at all, or
    nothing else) each region counts as one pixel.
    """
    totals = np.asarray(pixels, dtype=np.int64)
    found = np.asarray(hits, dtype=np.int64)[totals > 0]
    totals = totals[totals > 0]
    if len(totals) == 0:
        return None
    total, hit = int(totals.sum()), int(found.sum())
    share = hit / total
    size = _effective_pixels(found, totals, share)
    return RegionShare(
        hits=hit,
        pixels=total,
        regions=len(totals),
        share=share,
        low=float(wilson_lower(share * size, size)),
        high=float(wilson_upper(share * size, size)),
    )


def _effective_pixels(hits: ArrayLike, totals: ArrayLike, share: float) -> float:
    """Independent pixels that would tell as much; at least 1, at most two per region."""
    per_region, sizes = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    regions, total = len(sizes), float(sizes.sum())
    if regions == 1 or share in (0.0, 1.0):
        return float(regions)
    residual = per_region - share * sizes
    variance = regions / (regions - 1) * float((residual**2).sum()) / total**2
    most = _MOST_PER_REGION * regions
    size = share * (1 - share) / variance if variance > 0 else most
    fewer = (stats.norm.ppf(_TWO_SIDED) / stats.t.ppf(_TWO_SIDED, regions - 1)) ** 2
    return float(np.clip(size * fewer, 1.0, most))
