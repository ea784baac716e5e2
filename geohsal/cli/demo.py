"""`geohsal demo`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


@click.command("demo")
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    type=options.PATH,
    default=Path("geohsal-demo"),
    show_default=True,
    help="Where to write.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Rounds of training; the oracle answers all but the last.",
)
@options.seed
@options.device
@options.overwrite
@options.reporting
def command(
    *, out: Path, rounds: int, seed: int | None, device: str, overwrite: bool, report: Report
) -> None:
    """Run a SYNTHETIC example from start to finish: minutes on two cores, no download.

    Interrupted, the same command goes on. Afterwards the folder holds a run to play with.
    """
    from geohsal.workflows.demo import demo

    with report.progress() as progress:
        summary = demo(
            out,
            rounds=rounds,
            seed=seed or 0,
            device=device,
            overwrite=overwrite,
            report=report.line,
            progress=progress,
        )
    report.result(summary, ())
