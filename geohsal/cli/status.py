"""`geohsal status`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.diagnose import Reference


@click.command("status")
@options.run_argument
@click.option(
    "--diagnostics",
    is_flag=True,
    help="Measure maps and questions of a round instead, as a table and a picture in its folder.",
)
@click.option("--round", "round_index", type=click.IntRange(min=0), help="Which; default: newest.")
@click.option(
    "--reference",
    type=click.Choice(["answers", "truth"]),
    help="Measure by the answers taken in (default), or by the manifest's truth.",
)
@options.reporting
def command(
    run_dir: Path,
    *,
    diagnostics: bool,
    round_index: int | None,
    reference: Literal["answers", "truth"] | None,
    report: Report,
) -> None:
    """Say where RUN stands: rounds, labels, what was spent, and what comes next."""
    if diagnostics:
        _diagnose(run_dir, round_index, reference or "answers", report)
        return
    if round_index is not None or reference is not None:
        raise click.UsageError("--round and --reference go with --diagnostics")
    from geohsal.workflows.status import status, status_lines

    summary = status(run_dir)
    report.result(summary, status_lines(summary))


def _diagnose(
    run_dir: Path, round_index: int | None, reference: "Reference", report: Report
) -> None:
    from geohsal.io.run import open_run
    from geohsal.workflows.diagnose import diagnose, diagnostics_path
    from geohsal.workflows.diagnose_lines import diagnosis_lines
    from geohsal.workflows.diagnose_plot import draw_diagnostics

    found = diagnose(run_dir, round_index=round_index, reference=reference)
    record = diagnostics_path(open_run(run_dir).round(found.round), reference)
    picture = record.with_suffix(".png")
    draw_diagnostics(found, picture)
    report.result(found, [*diagnosis_lines(found), f"written: {record}, {picture.name}"])
