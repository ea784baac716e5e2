"""`geohsal predict`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.outlooks import PredictOutlook


@click.command("predict")
@click.argument("places", metavar="[RUN] [RASTER]...", nargs=-1)
@options.out_dir
@click.option(
    "--model", metavar="DIR", type=options.PATH, help="A model folder; then no RUN is given."
)
@options.overwrite
@options.workers
@options.device
@options.shard
@options.scheduler
@options.dry_run
@options.reporting
def command(
    places: tuple[str, ...],
    *,
    out: Path,
    model: Path | None,
    overwrite: bool,
    workers: int,
    device: str,
    shard: str | None,
    scheduler: str | None,
    dry_run: bool,
    report: Report,
) -> None:
    """Write maps of classes, probabilities, error and states as COGs.

    Of RUN's own scenes where no RASTER is given, else of any rasters with the model's bands. With
    --dry-run rasters are opened, windows and bytes are counted, and nothing is changed.
    """
    if not places:
        raise click.UsageError("give a RUN, or --model DIR and rasters")
    run_dir, rasters = (None, places) if model else (Path(places[0]), places[1:])
    asked: dict[str, Any] = {
        "out": out,
        "model": model,
        "overwrite": overwrite,
        "device": device,
        "shard": shard,
    }
    if dry_run:
        from geohsal.workflows.engine import refuse_scheduler
        from geohsal.workflows.predict import foresee_prediction

        refuse_scheduler(scheduler, dry_run=dry_run)
        outlook = foresee_prediction(run_dir, rasters, **asked)
        report.result(outlook, outlook_lines(outlook))
        return
    from geohsal.workflows.predict import predict

    with report.progress() as progress:
        summary = predict(
            run_dir, rasters, workers=workers, scheduler=scheduler, progress=progress, **asked
        )
    report.result(summary)
    if shard is not None:
        when = "once nothing is left" if summary.left else "nothing is left"
        report.line(f"{when}, the same command without --shard writes the maps")


def outlook_lines(outlook: "PredictOutlook") -> Iterator[str]:
    """What would be read, spent and written."""
    yield f"model {outlook.model}, on {outlook.device}"
    for name, (rows, cols) in outlook.scenes.items():
        yield f"would map {name}: {rows} x {cols} pixels"
    yield from (f"kept: {name} is mapped by this model already" for name in outlook.kept)
    yield from (f"would fail: {reason}" for reason in outlook.failures.values())
    if not outlook.scenes:
        yield "nothing to do"
        return
    share = f", share {outlook.shard}" if outlook.shard else ""
    yield (
        f"chunks to do now{share}: {outlook.chunks_now}; done before: {outlook.chunks_done} of "
        f"{outlook.chunks}"
    )
    size = f"{outlook.unpacked_bytes / 1e6:,.1f} MB of maps, less once packed"
    yield f"would write {'parts only' if outlook.shard else size}: {outlook.out}"
    yield "nothing is changed"
