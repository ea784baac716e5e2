"""`geohsal answer`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


@click.command("answer")
@options.run_argument
@click.argument("queries", metavar="QUERIES.gpkg", type=options.PATH)
@options.out_file
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Share of class patches given a wrong class.",
)
@click.option(
    "--skip", type=click.FloatRange(0, 1), default=0.0, help="Share of regions left as skipped."
)
@click.option(
    "--slop",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Pixels by which borders between classes are off, at most.",
)
@options.seed
@options.overwrite
@options.reporting
def command(
    run_dir: Path,
    *,
    queries: Path,
    out: Path,
    noise: float,
    skip: float,
    slop: float,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """Let an oracle fill QUERIES.gpkg of RUN from the manifest's truth.

    For experiments and tests: it edits the very file that a person would edit in QGIS.
    """
    from geohsal.workflows.answer import answer

    summary = answer(
        run_dir,
        queries,
        out,
        noise=noise,
        skip=skip,
        slop_px=slop,
        seed=seed or 0,
        overwrite=overwrite,
    )
    report.result(summary)
