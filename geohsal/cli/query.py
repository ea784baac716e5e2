"""`geohsal query`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.query import QuerySummary


@click.command("query")
@options.run_argument
@click.option(
    "--budget",
    metavar="B",
    help="200regions, 1.5ha, 0.5km2, 2% (of all valid train pixels), 30000px or 45min; "
    "without it: query.budget of the settings.",
)
@options.overwrite
@options.workers
@options.device
@options.dry_run
@options.reporting
def command(
    run_dir: Path,
    *,
    budget: str | None,
    overwrite: bool,
    workers: int,
    device: str,
    dry_run: bool,
    report: Report,
) -> None:
    """Predict RUN's scenes, refine, and choose the regions worth asking about.

    Writes the review file of the round for QGIS, and the round's rasters. With --dry-run the maps
    are made and the choice is told, but no review file is written.
    """
    from geohsal.workflows.query import query

    with report.progress() as progress:
        summary = query(
            run_dir,
            budget=budget,
            overwrite=overwrite,
            workers=workers,
            device=device,
            dry_run=dry_run,
            progress=progress,
        )
    report.result(summary, query_lines(summary))


def query_lines(summary: "QuerySummary") -> Iterator[str]:
    """What is asked, what it costs, and where the files are."""
    area = "" if summary.area_ha is None else f", {summary.area_ha:.2f} ha"
    yield (
        f"round {summary.round}: {summary.regions} regions ({summary.audit_regions} audits), "
        f"{summary.pixels:,} px{area}, about {summary.minutes:.0f} min of review"
    )
    yield f"budget {summary.budget}: {summary.spent:g} {summary.unit} spent"
    total = max(sum(summary.states.values()), 1)
    shares = (f"{name.lower()} {count / total:.1%}" for name, count in summary.states.items())
    yield f"pixels: {', '.join(shares)}"
    yield from summary.notes
    yield from (f"review in QGIS: {path}" for path in summary.files)
