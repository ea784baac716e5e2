"""`geohsal select`."""

from pathlib import Path
from typing import Any

import click

from geohsal.cli import options
from geohsal.cli.choosing import choosing, query_lines
from geohsal.cli.report import Report


@click.command("select")
@options.run_argument
@choosing
@options.workers
@options.reporting
def command(run_dir: Path, *, workers: int, report: Report, **choice: Any) -> None:
    """Choose the regions worth asking about, once all shards of RUN's query are done.

    Writes what geohsal query writes, and the same. Exit code 75: some chunks are not judged yet.
    """
    from geohsal.workflows.query import select

    with report.progress() as progress:
        summary = select(run_dir, **choice, workers=workers, progress=progress)
    report.result(summary, query_lines(summary))
