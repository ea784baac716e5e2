"""`geohsal tile`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.tile import TileShare, TileSummary


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
@options.shard
@options.scheduler
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
    shard: str | None,
    scheduler: str | None,
    dry_run: bool,
    report: Report,
) -> None:
    """Check MANIFEST and its rasters, and write the tile index of a run.

    Again on a changed manifest: added scenes and labels are taken and named. A killed call goes
    on where it was.
    """
    from geohsal.cli.settings import new_settings, run_settings

    if shard is not None and dry_run:
        raise click.UsageError("--shard leaves parts behind: give it without --dry-run")
    config = (
        new_settings(config_source, overrides, seed=seed, report=report, method=method)
        if overwrite
        else run_settings(out, config_source, overrides, seed=seed, report=report, method=method)
    )
    asked: dict[str, Any] = {
        "config": config,
        "patches": patches,
        "overwrite": overwrite,
        "workers": workers,
        "scheduler": scheduler,
    }
    with report.progress() as progress:
        if shard is not None:
            from geohsal.workflows.tile import tile_share

            share = tile_share(manifest, out, shard=shard, progress=progress, **asked)
        else:
            from geohsal.workflows.tile import tile

            summary = tile(manifest, out, dry_run=dry_run, progress=progress, **asked)
    if shard is not None:
        report.result(share, share_lines(share))
    else:
        report.result(summary, tile_lines(summary))


def share_lines(share: "TileShare") -> Iterator[str]:
    """What a share did, and what comes next."""
    yield f"{share.run_dir}: share {share.shard}: scenes scanned now: {share.done}"
    if share.left:
        yield f"scenes left for other shares: {share.left}"
    else:
        yield "no scene is left; the same command without --shard makes the run"


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
    for name, size in summary.remote_pixel_bytes.items():
        yield f"scene {name}: {size / 1e6:,.1f} MB of pixels came over the network (unpacked)"
    yield f"train pixels that are valid: {record.train_valid_pixels:,}; labelled:"
    for info in record.classes:
        yield f"  {info.name:20} {info.pixels:>12,} px {info.regions:>6} regions {info.share:.3%}"
    yield from (f"warning: {warning}" for warning in summary.warnings)
