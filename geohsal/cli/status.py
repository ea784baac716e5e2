"""`geohsal status`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


@click.command("status")
@options.run_argument
@options.reporting
def command(run_dir: Path, *, report: Report) -> None:
    """Say where RUN stands: rounds, labels, what was spent, and what comes next."""
    from geohsal.workflows.status import status, status_lines

    summary = status(run_dir)
    report.result(summary, status_lines(summary))
