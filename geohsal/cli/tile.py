"""`geohsal tile`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.tile import TileSummary


@click.command("tile")
@click.argument("manifest", metavar="MANIFEST", type=options.PATH)
@click.option("-o", "--out", metavar="RUN", type=options.PATH, required=True, help="Run folder.")
@click.option("--patches", is_flag=True, help="Also write the tiles as GeoTIFFs.")
@options.config
@options.method
@options.overrides
@options.seed
@options.overwrite
@options.workers
@options.dry_run
@options.reporting
def command(
    manifest: Path,
    *,
    out: Path,
    patches: bool,
    config_source: str | None,
    method: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    overwrite: bool,
    workers: int,
    dry_run: bool,
    report: Report,
) -> None:
    """Check MANIFEST and its rasters, and write the tile index of a run.

    Again on a changed manifest: added scenes and labels are taken and named.
    """
    from geohsal.cli.settings import new_settings, run_settings
    from geohsal.workflows.tile import tile

    config = (
        new_settings(config_source, overrides, seed=seed, report=report, method=method)
        if overwrite
        else run_settings(out, config_source, overrides, seed=seed, report=report, method=method)
    )
    with report.progress() as progress:
        summary = tile(
            manifest,
            out,
            config=config,
            patches=patches,
            overwrite=overwrite,
            workers=workers,
            dry_run=dry_run,
            progress=progress,
        )
    report.result(summary, tile_lines(summary))


def tile_lines(summary: "TileSummary") -> Iterator[str]:
    """What a person wants to know: pixels per scene, labels per class, warnings."""
    record = summary.record
    what = "checked, nothing written" if summary.dry_run else "tiled"
    yield f"{summary.run_dir}: {what if summary.changed else 'nothing new'}, {summary.tiles} tiles"
    yield from (f"  {note}" for note in summary.notes)
    for name, scene in record.scenes.items():
        labelled = sum(scene.labelled.values())
        yield (
            f"scene {name}: {scene.split}, {scene.height} x {scene.width}, "
            f"{scene.valid_pixels:,} valid pixels, {labelled:,} labelled"
        )
    yield f"train pixels that are valid: {record.train_valid_pixels:,}; labelled:"
    for info in record.classes:
        yield f"  {info.name:20} {info.pixels:>12,} px {info.regions:>6} regions {info.share:.3%}"
    yield from (f"warning: {warning}" for warning in summary.warnings)
