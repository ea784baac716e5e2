"""A simulation in figures: area under the curves, labels needed, gain over random questions."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geohsal.config.methods import FULL
from geohsal.io.atomic import write_json, write_text
from geohsal.training.curves import (
    Gain,
    Spread,
    area_under_curve,
    gain,
    share_reaching,
    spread,
)
from geohsal.workflows.simulate_rows import Row

FORMAT_VERSION = 1
PARTS = (0.90, 0.95, 0.99)
"""Parts of the mIoU with every pixel labelled whose label share is looked for."""
RANDOM = "random"
NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Label share at which a part of the full mIoU is reached; `share` None unless by all seeds.

    `reached` of `seeds` seeds reach it within their rounds.
    """

    part: float
    share: float | None
    reached: int
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One method and strategy over its seeds.

    `seeds` are those whose rounds are all there; they alone count. `wanted` is the number of seeds
    that were asked for. `aubc` is the area under mIoU by spent share, over the range of the shares;
    `over_random` how far it lies above the same method with random questions, on the seeds that
    both have.
    """

    dataset: str
    method: str
    strategy: str
    seeds: tuple[int, ...]
    wanted: int
    rounds: int
    spent_share: float
    aubc: Spread
    last_miou: Spread
    last_oa: Spread
    needed: tuple[Needed, ...]
    over_random: Gain | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All methods and strategies; `full` is the mIoU with every train pixel labelled.

    `unfinished` names those that no seed has finished.
    """

    full: Spread | None
    figures: tuple[Figures, ...]
    unfinished: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


Curves = dict[int, list[Row]]
"""Rows by seed, rounds rising."""


def summary_of(rows: Sequence[Row], *, rounds: int, seeds: Sequence[int]) -> Summary:
    """The figures of all rows, in their order; a seed counts once all its rounds are there.

    Shares are compared with the full mIoU of the same seed.

    Args:
        rows: of the simulation, finished or not.
        rounds: of every seed.
        seeds: that were asked for.
    """
    full = {row.seed: row.miou for row in rows if row.method == FULL}
    groups = curves_of(rows)
    whole = {
        key: {seed: own for seed, own in curves.items() if len(own) >= rounds}
        for key, curves in groups.items()
    }
    areas = {key: _areas(curves) for key, curves in whole.items()}
    figures = tuple(
        _figures(
            key,
            curves,
            areas[key],
            full=full,
            random={} if key[1] == RANDOM else areas.get((key[0], RANDOM), {}),
            wanted=len({*seeds, *groups[key]}),
        )
        for key, curves in whole.items()
        if curves
    )
    return Summary(
        full=spread(list(full.values())) if full else None,
        figures=figures,
        unfinished=tuple("/".join(key) for key, curves in whole.items() if not curves),
    )


def curves_of(rows: Sequence[Row]) -> dict[tuple[str, str], Curves]:
    """Rows by (method, strategy) and seed, rounds rising; without those of all labels."""
    groups: dict[tuple[str, str], Curves] = {}
    for row in sorted(rows, key=lambda item: item.place):
        if row.method != FULL:
            own = groups.setdefault((row.method, row.strategy), {})
            own.setdefault(row.seed, []).append(row)
    return groups


def _areas(curves: Curves) -> dict[int, float]:
    return {
        seed: area_under_curve([row.spent_share for row in own], [row.miou for row in own])
        for seed, own in curves.items()
    }


def _figures(
    key: tuple[str, str],
    curves: Curves,
    areas: dict[int, float],
    *,
    full: dict[int, float],
    random: dict[int, float],
    wanted: int,
) -> Figures:
    last = [own[-1] for own in curves.values()]
    both = [seed for seed in areas if seed in random]
    return Figures(
        dataset=last[0].dataset,
        method=key[0],
        strategy=key[1],
        seeds=tuple(curves),
        wanted=wanted,
        rounds=max(len(own) for own in curves.values()),
        spent_share=spread([row.spent_share for row in last]).mean,
        aubc=spread(list(areas.values())),
        last_miou=spread([row.miou for row in last]),
        last_oa=spread([row.oa for row in last]),
        needed=tuple(_needed(part, curves, full) for part in PARTS if full),
        over_random=gain([areas[s] for s in both], [random[s] for s in both]) if both else None,
    )


def _needed(part: float, curves: Curves, full: dict[int, float]) -> Needed:
    known = [seed for seed in curves if seed in full]
    shares = [
        share_reaching(
            [row.spent_share for row in curves[seed]],
            [row.miou for row in curves[seed]],
            target=part * full[seed],
        )
        for seed in known
    ]
    reached = [share for share in shares if share is not None]
    everyone = bool(known) and len(reached) == len(known)
    return Needed(
        part=part,
        share=spread(reached).mean if everyone else None,
        reached=len(reached),
        seeds=len(known),
    )


def write_summary(summary: Summary, folder: Path) -> None:
    """Write summary.json and summary.md."""
    write_json(folder / "summary.json", {"format_version": FORMAT_VERSION, **summary.to_dict()})
    write_text(folder / "summary.md", "\n".join(summary_lines(summary)) + "\n")


def summary_lines(summary: Summary) -> Iterator[str]:
    """The figures as a Markdown table, the largest area first."""
    parts = PARTS if summary.full else ()
    if summary.full is not None:
        yield f"With every train pixel labelled: mIoU {_pair(summary.full)}."
        yield ""
    heads = ["method", "strategy", "seeds", "area under mIoU", "over random", "last mIoU"]
    heads += ["last OA", "at share", *(f"share for {part:.0%}" for part in parts)]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for found in sorted(summary.figures, key=lambda item: -item.aubc.mean):
        cells = [
            found.method,
            found.strategy,
            _seeds_text(found),
            _pair(found.aubc),
            _gain_text(found.over_random),
            _pair(found.last_miou),
            _pair(found.last_oa),
            f"{found.spent_share:.2%}",
            *map(_needed_text, found.needed),
        ]
        yield f"| {' | '.join(cells)} |"
    if summary.unfinished:
        yield ""
        yield f"No seed is finished yet: {', '.join(summary.unfinished)}."


def _seeds_text(found: Figures) -> str:
    """How many seeds count, and of how many where some are unfinished."""
    finished = len(found.seeds)
    return str(finished) if finished == found.wanted else f"{finished} of {found.wanted}"


def _pair(found: Spread) -> str:
    """Mean and deviation; one repetition has no deviation."""
    return f"{found.mean:.4f}" + (f" ± {found.std:.4f}" if found.count > 1 else "")


def _gain_text(over: Gain | None) -> str:
    if over is None:
        return ""
    sd = f" (sd {over.pooled_std:.4f})" if over.pooled_std is not None else ""
    return f"{over.difference:+.4f}{sd}"


def _needed_text(needed: Needed) -> str:
    if needed.share is not None:
        return f"{needed.share:.2%}"
    if not needed.seeds:
        return ""
    return (
        NOT_REACHED if not needed.reached else f"{NOT_REACHED} ({needed.reached} of {needed.seeds})"
    )
