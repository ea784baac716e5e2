"""A round's regions dealt out to several reviewers: neighbours together, equal work, some twice."""

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import RequestError
from geohsal.geo.budget import counted
from geohsal.geo.polygons import transformer_between
from geohsal.geo.scene import QueryRegion, Scene

_LONLAT = "EPSG:4326"
_METRES_PER_DEGREE = 111_320.0
Package = tuple[int, ...]

NEAR = 3
"""Packages among which the second reviewer of a region is chosen."""


def deal(
    regions: Sequence[QueryRegion],
    positions: NDArray[np.float64],
    *,
    packages: int,
    overlap: float = 0.0,
    seed: int = 0,
    spare_min: float = math.inf,
) -> tuple[list[Package], float]:
    """Places in `regions` per package, in their order; each region is in one, the overlap in two.

    The map is halved again and again across its longer side so that the halves cost equal
    minutes. What is reviewed twice is drawn by lot among the regions of the busiest package, and
    the second reviewer is the least busy one of the NEAR nearest other packages.

    Args:
        regions: what is asked, with minutes.
        positions: (region, 2), see `region_positions`.
        packages: number of reviewers.
        overlap: share of the regions that two people review; at least one region if above 0.
        seed: of the lot.
        spare_min: minutes that the second reviews may cost together.

    Returns:
        The packages, and the minutes of the second reviews.

    Raises:
        RequestError: there are fewer regions than packages.
    """
    if len(regions) < packages:
        raise RequestError(
            f"--packages {packages}: the budget buys {counted(len(regions), 'region')}, fewer than "
            "one for each; give a larger budget or fewer packages"
        )
    minutes = np.array([region.cost_min for region in regions])
    shares = [set(part) for part in _halve(np.arange(len(regions)), positions, minutes, packages)]
    extra = _overlap(shares, regions, positions, minutes, overlap, seed, spare_min)
    return [tuple(sorted(share)) for share in shares], extra


def _halve(
    places: NDArray[np.intp],
    positions: NDArray[np.float64],
    minutes: NDArray[np.float64],
    packages: int,
) -> list[list[int]]:
    if packages == 1:
        return [places.tolist()]
    first = packages // 2
    own = positions[places]
    axis = int(np.argmax(np.ptp(own, axis=0)))
    ordered = places[np.lexsort((places, own[:, 1 - axis], own[:, axis]))]
    spent = np.cumsum(minutes[ordered])
    wanted = spent[-1] * first / packages
    cuts = np.arange(first, len(places) - (packages - first) + 1)
    cut = int(cuts[np.argmin(np.abs(spent[cuts - 1] - wanted))])
    return [
        *_halve(ordered[:cut], positions, minutes, first),
        *_halve(ordered[cut:], positions, minutes, packages - first),
    ]


def _overlap(
    shares: list[set[int]],
    regions: Sequence[QueryRegion],
    positions: NDArray[np.float64],
    minutes: NDArray[np.float64],
    overlap: float,
    seed: int,
    spare_min: float,
) -> float:
    """Put some regions into a second package as well; give back what that costs."""
    if overlap == 0 or len(shares) < 2:
        return 0.0
    centres = np.stack([positions[sorted(share)].mean(axis=0) for share in shares])
    busy = [float(minutes[sorted(share)].sum()) for share in shares]
    waiting = [
        sorted(share, key=lambda place: _lot(regions[place], seed), reverse=True)
        for share in shares
    ]
    left, extra = max(1, round(overlap * len(regions))), 0.0
    while left and any(waiting):
        first = max((n for n in range(len(shares)) if waiting[n]), key=lambda n: (busy[n], -n))
        place = waiting[first].pop()
        if extra + minutes[place] > spare_min * (1 + 1e-12):
            continue
        distance = np.hypot(*(centres - positions[place]).T)
        distance[first] = np.inf
        near = np.argsort(distance, kind="stable")[: min(NEAR, len(shares) - 1)].tolist()
        second = min(near, key=lambda n: (busy[n], n))
        shares[second].add(place)
        busy[second] += float(minutes[place])
        extra += float(minutes[place])
        left -= 1
    return extra


def _lot(region: QueryRegion, seed: int) -> bytes:
    return blake2b(f"{seed}\0overlap\0{region.region_id}".encode(), digest_size=8).digest()


def region_positions(
    regions: Sequence[QueryRegion], scenes: Mapping[str, Scene]
) -> NDArray[np.float64]:
    """(region, 2): metres east and north, roughly; scenes without a position lie side by side."""
    cells = np.array(
        [
            (
                region.cell.col_off + region.cell.width / 2,
                region.cell.row_off + region.cell.height / 2,
            )
            for region in regions
        ]
    )
    found = np.zeros((len(regions), 2))
    names = np.array([region.scene_id for region in regions])
    earth = np.array([not scenes[region.scene_id].local for region in regions])
    for name in np.unique(names[earth]):
        at = names == name
        found[at] = _lonlat(cells[at], scenes[str(name)])
    if earth.any():
        lon, lat = found[earth].T
        turned = (lon - lon[0] + 180) % 360 - 180  # neighbours across the date line stay together
        shrink = math.cos(math.radians(float(lat.mean())))
        metres = np.column_stack([turned * shrink, lat]) * _METRES_PER_DEGREE
        found[earth] = metres - metres.min(axis=0)
    sides = [float(max(scene.shape)) * 2 for scene in scenes.values() if scene.local]
    step = max([*np.ptp(found[earth], axis=0).tolist(), *sides]) if earth.any() else max(sides)
    base = float(found[earth, 0].max()) if earth.any() else 0.0
    for number, name in enumerate(np.unique(names[~earth]), start=1):
        at = names == name
        found[at] = cells[at] + (base + number * step, 0.0)
    return found


def _lonlat(cells: NDArray[np.float64], scene: Scene) -> NDArray[np.float64]:
    at = scene.transform
    x = at.a * cells[:, 0] + at.b * cells[:, 1] + at.c
    y = at.d * cells[:, 0] + at.e * cells[:, 1] + at.f
    assert scene.crs is not None, "a scene that is not local has a CRS"
    transformer = transformer_between(scene.crs, type(scene.crs).from_string(_LONLAT))
    return np.column_stack(transformer.transform(x, y))
