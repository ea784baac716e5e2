"""`geohsal report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.report import ReportSummary


@click.command("report")
@options.run_argument
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=options.PATH,
    help="File to write (.html). Default: report.html in RUN.",
)
@options.overwrite
@options.reporting
def command(run_dir: Path, *, out: Path | None, overwrite: bool, report: Report) -> None:
    r"""Write a page about RUN that can be mailed: one HTML file that loads nothing.

    It shows where the run stands, what was spent, accuracy, maps, corrections and calibration, from
    what the run's folder holds: for accuracy, evaluate first.

    \b
    geohsal report RUN
    geohsal report RUN -o town.html --overwrite
    """
    from geohsal.workflows.report import report as write_report

    with report.progress() as progress:
        summary = write_report(run_dir, out, overwrite=overwrite, progress=progress)
    report.result(summary, report_lines(summary))


def report_lines(summary: "ReportSummary") -> list[str]:
    """Where the page is, and what it leaves out."""
    size = f"{summary.size_bytes / 1e6:.1f} MB"
    if not summary.written:
        return [f"nothing to do: {summary.out} is up to date ({size})"]
    lines = [f"wrote {summary.out} ({size}); open it in a browser, or mail it"]
    if summary.scenes and summary.left_out:
        shown = len(summary.scenes)
        lines.append(f"maps of {shown} scenes; left out: {len(summary.left_out)}")
    return lines
