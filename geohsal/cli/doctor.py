"""`geohsal doctor`."""

from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report

BROKEN = 3


@click.command(
    "doctor", epilog="Example, on a compute node: srun geohsal doctor my-run --dir /scratch"
)
@click.argument("run_dir", metavar="[RUN]", required=False, type=options.PATH)
@click.option(
    "--dir", "folder", type=options.PATH, default=Path(), help="Folder where runs will be written."
)
@options.reporting
def command(run_dir: Path | None, *, folder: Path, report: Report) -> None:
    """Say what this machine has, and what to do where it lacks something.

    With a RUN also whether it can be worked on here: reached, written, its weights found offline.
    Exit code 3 if something that geohsal cannot work without is broken.
    """
    from geohsal.workflows.doctor import check_lines, doctor

    checks = doctor(folder, run_dir=run_dir)
    report.result({"checks": checks}, check_lines(checks))
    if any(check.level == "bad" for check in checks):
        raise click.exceptions.Exit(BROKEN)
