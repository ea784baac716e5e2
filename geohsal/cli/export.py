"""`geohsal export`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.export import ExportSummary
    from geohsal.workflows.outlooks import ExportOutlook


@click.command("export")
@options.run_argument
@options.out_file
@click.option(
    "--what",
    type=click.Choice(["refined", "final"]),
    default="refined",
    show_default=True,
    help="refined: by class and source, undecided patches too; final: by class, answers burnt in.",
)
@click.option(
    "--sieve",
    "sieve_px",
    type=click.IntRange(min=0),
    help="Patches below this many pixels join their largest neighbour (else: output.sieve_px).",
)
@click.option(
    "--simplify",
    "simplify_px",
    type=click.FloatRange(min=0),
    help="Tolerance of gap-free simplification in pixels, 0: none (else: output.simplify_px).",
)
@options.overwrite
@options.workers
@options.shard
@options.scheduler
@options.dry_run
@options.reporting
def command(
    run_dir: Path,
    *,
    out: Path,
    what: Literal["refined", "final"],
    sieve_px: int | None,
    simplify_px: float | None,
    overwrite: bool,
    workers: int,
    shard: str | None,
    scheduler: str | None,
    dry_run: bool,
    report: Report,
) -> None:
    """Write refined pseudo-labels, or the final map, of RUN as seamless polygons.

    Of the newest queried round. FILE ends in .gpkg (styled for QGIS), .parquet or .fgb. With
    --dry-run files are hashed, scenes are counted, and nothing is changed.
    """
    asked: dict[str, Any] = {
        "what": what,
        "sieve_px": sieve_px,
        "simplify_px": simplify_px,
        "overwrite": overwrite,
        "shard": shard,
    }
    if dry_run:
        from geohsal.workflows.engine import refuse_scheduler
        from geohsal.workflows.export_outlook import foresee_export

        refuse_scheduler(scheduler, dry_run=dry_run)
        outlook = foresee_export(run_dir, out, **asked)
        report.result(outlook, outlook_lines(outlook))
        return
    from geohsal.workflows.export import export

    with report.progress() as progress:
        summary = export(
            run_dir, out, workers=workers, scheduler=scheduler, progress=progress, **asked
        )
    report.result(summary, export_lines(summary))


def export_lines(summary: "ExportSummary") -> list[str] | None:
    """A line where no file was written; None: the summary's fields."""
    from geohsal.geo.budget import counted

    if summary.written:
        return None
    if summary.left is not None:
        left = f"scenes left for other shares: {summary.left}"
        last = f"no scene is left; the same command without --shard writes {summary.out}"
        return [f"scenes cut now: {summary.done}", left if summary.left else last]
    polygons = counted(summary.polygons, "polygon")
    return [f"nothing to do: {summary.out} is up to date ({polygons})"]


def outlook_lines(outlook: "ExportOutlook") -> Iterator[str]:
    """What would be read, spent and written."""
    if outlook.up_to_date:
        yield f"nothing to do: {outlook.out} is up to date"
        return
    share = f", share {outlook.shard}" if outlook.shard else ""
    yield (
        f"round {outlook.round}: scenes to cut now{share}: {outlook.parts_now}; cut before: "
        f"{outlook.parts_done} of {len(outlook.scenes)}"
    )
    if outlook.scenes_now:
        size = f"{outlook.raster_bytes / 1e6:,.1f} MB"
        yield f"would read {size} of rasters of: {', '.join(outlook.scenes_now)}"
    if outlook.skipped:
        yield f"without rasters in this round: {', '.join(outlook.skipped)}"
    yield f"would write {'parts only' if outlook.shard else 'the file'}: {outlook.out}"
    yield "nothing is changed"
