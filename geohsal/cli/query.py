"""`geohsal query`."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from geohsal.cli import options
from geohsal.cli.choosing import choosing, query_lines
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.query import ScoreSummary

CHOICE = ("budget", "packages", "overlap", "overwrite", "dry_run")
"""Options that say what to choose, which a shard does not."""


@click.command("query")
@options.run_argument
@choosing
@options.workers
@options.device
@options.shard
@options.scheduler
@options.dry_run
@options.reporting
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_dir: Path,
    *,
    shard: str | None,
    workers: int,
    device: str,
    scheduler: str | None,
    report: Report,
    **choice: Any,
) -> None:
    """Predict RUN's scenes, refine, and choose the regions worth asking about.

    Writes the review file of the round, its QGIS project, its review page and its rasters. With
    --dry-run the maps are made and the choice is told, but no review file is written. With --shard
    a share of the maps is made and nothing chosen: once all shares are done, run geohsal select.
    """
    engine: dict[str, Any] = {"workers": workers, "device": device, "scheduler": scheduler}
    if shard is not None:
        _refuse_choice(ctx)
        from geohsal.workflows.query import score

        with report.progress() as progress:
            scored = score(run_dir, shard=shard, **engine, progress=progress)
        report.result(scored, score_lines(scored, run_dir))
        return
    from geohsal.workflows.query import query

    with report.progress() as progress:
        summary = query(run_dir, **choice, **engine, progress=progress)
    report.result(summary, query_lines(summary))


def _refuse_choice(ctx: click.Context) -> None:
    for name in CHOICE:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option}: a shard chooses nothing; give it to geohsal select", ctx
            )


def score_lines(summary: "ScoreSummary", run_dir: Path) -> Iterator[str]:
    """What is judged and what is left."""
    yield (
        f"round {summary.round}, shard {summary.shard}: {summary.done} of {summary.planned} chunks "
        "judged now"
    )
    if summary.left:
        yield f"left for other shards: {summary.left} of {summary.planned} chunks"
    else:
        yield f"every chunk is judged; choose with: geohsal select {shlex.quote(str(run_dir))}"
