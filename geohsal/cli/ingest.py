"""`geohsal ingest`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


@click.command("ingest")
@options.run_argument
@click.argument("files", metavar="[REVIEWED.gpkg]...", type=options.PATH, nargs=-1)
@click.option("--undo", is_flag=True, help="Take the last ingest back (no file).")
@options.dry_run
@options.reporting
def command(
    run_dir: Path, *, files: tuple[Path, ...], undo: bool, dry_run: bool, report: Report
) -> None:
    """Check a reviewer's edits, add them to labels and ledger, and open the next round of RUN."""
    if undo == bool(files):
        raise click.UsageError("give the reviewed files, or --undo and no file")
    from geohsal.workflows.ingest import ingest

    report.result(ingest(run_dir, files, undo=undo, dry_run=dry_run))
