"""`geohsal predict`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


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
    report: Report,
) -> None:
    """Write maps of classes, probabilities, error and states as COGs.

    Of RUN's own scenes where no RASTER is given, else of any rasters with the model's bands.
    """
    if not places:
        raise click.UsageError("give a RUN, or --model DIR and rasters")
    from geohsal.workflows.predict import predict

    run_dir, rasters = (None, places) if model else (Path(places[0]), places[1:])
    with report.progress() as progress:
        summary = predict(
            run_dir,
            rasters,
            out=out,
            model=model,
            overwrite=overwrite,
            workers=workers,
            device=device,
            shard=shard,
            scheduler=scheduler,
            progress=progress,
        )
    report.result(summary)
    if shard is not None:
        when = "once nothing is left" if summary.left else "nothing is left"
        report.line(f"{when}, the same command without --shard writes the maps")
