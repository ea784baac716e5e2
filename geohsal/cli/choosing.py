"""What `query` and `select` have in common: the options of a choice, and what is said of it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geohsal.cli import options

if TYPE_CHECKING:
    from geohsal.workflows.query_summary import QuerySummary

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--budget",
        metavar="B",
        help="200regions, 1.5ha, 0.5km2, 2% (of all valid train pixels), 30000px or 45min; "
        "without it: query.budget of the settings.",
    ),
    click.option(
        "--packages",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Share the regions out to N reviewers: N files of neighbouring regions and equal "
        "work.",
    ),
    click.option(
        "--overlap",
        metavar="SHARE",
        default="0%",
        show_default=True,
        help="Share of the regions that two reviewers get, to see how far they agree.",
    ),
    options.overwrite,
)


def choosing(function: F) -> F:
    """Adds --budget, --packages, --overlap and --overwrite."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def query_lines(summary: "QuerySummary") -> Iterator[str]:
    """What is asked, what it costs, and where the files are."""
    from geohsal.geo.budget import amount_text, counted

    if not summary.changed:
        yield f"nothing to do: round {summary.round} is already queried like this"
    area = "" if summary.area_ha is None else f", {summary.area_ha:.2f} ha"
    yield (
        f"round {summary.round}: {counted(summary.regions, 'region')} "
        f"({counted(summary.audit_regions, 'audit')}), "
        f"{summary.pixels:,} px{area}, about {max(summary.minutes, 1):.0f} min of review"
    )
    if summary.prices:
        yield f"review time: {summary.prices}"
    yield f"budget {summary.budget}: {amount_text(summary.spent, summary.unit)} spent"
    if summary.overlap_regions:
        yield (
            f"{counted(summary.overlap_regions, 'region')} in two packages: paid for once, but the "
            "minutes of both reviews count"
        )
    total = max(sum(summary.states.values()), 1)
    shares = (f"{name.lower()} {count / total:.1%}" for name, count in summary.states.items())
    yield f"pixels: {', '.join(shares)}"
    yield from summary.notes
    for path in summary.files:
        yield f"review in QGIS: {path.with_suffix('.qgz')} (answers are saved in {path.name})"
        yield f"or in a browser: {path.with_suffix('.html')}"
