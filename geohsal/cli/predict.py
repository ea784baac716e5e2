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
@options.device
@options.reporting
def command(
    places: tuple[str, ...],
    *,
    out: Path,
    model: Path | None,
    overwrite: bool,
    device: str,
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
            device=device,
            progress=progress,
        )
    report.result(summary)
