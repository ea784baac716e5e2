"""What a query asks, in numbers, and how it is shared out among reviewers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from geohsal.geo.budget import Budget, counted
from geohsal.geo.scene import QueryRegion
from geohsal.io.run import Round
from geohsal.query.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySummary:
    """What a query asks; `changed` is False where it had been written before.

    `spent` and `unspent` are in `unit`, the budget's; `area_ha` is None for local scenes.
    `states` counts pixels per state over all scenes. `packages` is 0 where nothing is shared out;
    else `overlap_regions` are asked twice: paid for once, but `minutes` counts both reviews.
    `prices` says what a reviewer's time is counted at.
    """

    round: int
    changed: bool
    files: tuple[Path, ...]
    regions: int
    audit_regions: int
    pixels: int
    area_ha: float | None
    minutes: float
    budget: str
    unit: str
    spent: float
    unspent: float
    states: dict[str, int]
    notes: tuple[str, ...]
    packages: int = 0
    overlap_regions: int = 0
    prices: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Into how many packages a round goes, and what share of its regions two people review."""

    packages: int = 1
    overlap: float = 0.0

    def __str__(self) -> str:
        """As part of a query's identity: must not change."""
        return "" if self.packages == 1 else f" in {self.packages} packages, overlap {self.overlap}"


def words(budget: str, shares: Shares) -> str:
    """What a query is asked for, to people."""
    if shares.packages == 1:
        return f"{budget} in 1 package"
    return f"{budget} in {shares.packages} packages, overlap {100 * shares.overlap:g}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """Region ids of each package (none where nothing is shared out); minutes of second reviews."""

    shares: Shares
    packages: Sequence[Sequence[str]]
    second_min: float


def summary_of(
    regions: Sequence[QueryRegion],
    selection: Selection,
    budget: Budget,
    *,
    round_index: int,
    files: Sequence[Path],
    states: Mapping[str, int],
    dealt: Dealt,
    prices: str,
) -> QuerySummary:
    """The regions of a round in numbers."""
    minutes = sum(region.cost_min for region in regions) + dealt.second_min
    spent, unspent = selection.spent, selection.remainder
    if dealt.packages and budget.unit == "seconds":  # second reviews were only expected so far
        spent, unspent = 60 * minutes, budget.amount - 60 * minutes
    twice = sum(map(len, dealt.packages)) - len(regions) if dealt.packages else 0
    areas = [region.area_m2 for region in regions]
    known = [area for area in areas if area is not None]
    return QuerySummary(
        round=round_index,
        changed=True,
        files=tuple(files),
        regions=len(regions),
        audit_regions=sum(region.audit for region in regions),
        pixels=sum(region.pixels for region in regions),
        area_ha=round(sum(known) / 1e4, 4) if len(known) == len(areas) else None,
        minutes=round(minutes, 2),
        budget=budget.text,
        unit=budget.unit,
        spent=round(spent, 6),
        unspent=round(unspent, 6),
        states=dict(states),
        notes=(*selection.notes, *_dealt_notes(regions, dealt, twice)),
        packages=len(dealt.packages),
        overlap_regions=twice,
        prices=prices,
    )


def _dealt_notes(regions: Sequence[QueryRegion], dealt: Dealt, twice: int) -> tuple[str, ...]:
    """What each package holds, and where the overlap fell short of what was asked for."""
    if not dealt.packages:
        return ()
    minutes = {region.region_id: region.cost_min for region in regions}
    notes = [
        f"package {number}: {counted(len(own), 'region')}, about "
        f"{max(sum(minutes[name] for name in own), 1):.0f} min"
        for number, own in enumerate(dealt.packages, start=1)
    ]
    wanted = max(1, round(dealt.shares.overlap * len(regions))) if dealt.shares.overlap else 0
    if twice < wanted:
        notes.append(f"only {twice} of {counted(wanted, 'region')} fit twice into the budget")
    return tuple(notes)


def summary_from(values: Mapping[str, Any], round_: Round) -> QuerySummary:
    """The summary of a query that was made before, from its record."""
    known = {field.name for field in fields(QuerySummary)}
    plain = {key: value for key, value in values.items() if key in known}
    plain |= {
        "changed": False,
        "files": tuple(round_.dir / name for name in values["files"]),
        "notes": tuple(values["notes"]),
    }
    return QuerySummary(**plain)
