"""`geohsal train`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.train import TrainSummary


@click.command("train")
@options.run_argument
@options.config
@options.method
@options.overrides
@options.device
@options.seed
@options.overwrite
@options.reporting
def command(
    run_dir: Path,
    *,
    config_source: str | None,
    method: str | None,
    overrides: tuple[str, ...],
    device: str,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """Train the open round of RUN; an interrupted training goes on where it was."""
    from geohsal.cli.settings import run_settings
    from geohsal.io.run import open_run

    open_run(run_dir)  # before torch is loaded
    config = run_settings(
        run_dir, config_source, overrides, seed=seed, report=report, method=method
    )
    from geohsal.workflows.train import train

    with report.progress() as progress:
        summary = train(
            run_dir, config=config, device=device, overwrite=overwrite, progress=progress
        )
    from geohsal.workflows.stop_advice import stop_advice

    advice = stop_advice(open_run(run_dir))
    lines = [*train_lines(summary, verbose=report.verbosity > 0)]
    report.result(summary, [*lines, f"advice: {advice.message}"] if advice else lines)


def train_lines(summary: "TrainSummary", *, verbose: bool) -> Iterator[str]:
    """What was learnt from, and what could not be calibrated (-v: why)."""
    what = f"trained in {summary.seconds:.0f} s" if summary.changed else "was trained before"
    yield f"round {summary.round}: {what}, {summary.steps} steps: {summary.model}"
    yield (
        f"learnt from {sum(summary.labelled_pixels.values()):,} labelled pixels in "
        f"{summary.regions} regions, {summary.withheld_regions} of them withheld to calibrate"
    )
    if summary.val_miou is not None:
        yield f"mIoU on the val split: {summary.val_miou:.4f}"
    if summary.classes_missing:
        yield f"without any label: {', '.join(summary.classes_missing)}"
    if summary.fallbacks:
        count = len(summary.fallbacks)
        yield f"{count} thresholds are fallbacks until more is labelled (-v lists them)"
    if verbose:
        yield from (f"  {line}" for line in summary.fallbacks)
    yield from (f"warning: {line}" for line in summary.warnings)
