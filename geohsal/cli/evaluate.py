"""`geohsal evaluate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.evaluate import Evaluation

MEASURES = {
    "iou": "IoU",
    "f1": "F1",
    "users_accuracy": "user's",
    "producers_accuracy": "producer's",
}


@click.command("evaluate")
@options.run_argument
@options.device
@options.reporting
def command(run_dir: Path, *, device: str, report: Report) -> None:
    """Measure the accuracy of RUN's newest model on the test split."""
    from geohsal.workflows.evaluate import evaluate

    with report.progress() as progress:
        evaluation = evaluate(run_dir, device=device, progress=progress)
    report.result(evaluation, evaluation_lines(evaluation))


def evaluation_lines(evaluation: "Evaluation") -> Iterator[str]:
    """The figures as a table; a dash where a class is absent."""
    against = ", ".join(f"{scene} ({what})" for scene, what in evaluation.reference.items())
    yield f"round {evaluation.round}, {evaluation.pixels:,} test pixels against {against}"
    yield (
        f"overall accuracy {evaluation.oa:.2%}, mIoU {evaluation.miou:.4f}, "
        f"macro F1 {evaluation.macro_f1:.4f}, kappa {evaluation.kappa:.4f}"
    )
    yield f"  {'':20} {'pixels':>12}" + "".join(f"{name:>12}" for name in MEASURES.values())
    for name, row in evaluation.per_class.items():
        values = [row[key] for key in MEASURES]
        cells = "".join(f"{'-' if value is None else f'{value:.4f}':>12}" for value in values)
        yield f"  {name:20} {row['pixels']:>12,}{cells}"
    if evaluation.absent:
        yield f"absent here, and in no mean: {', '.join(evaluation.absent)}"
