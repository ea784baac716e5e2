"""`geohsal submit`."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.submit import SubmitSummary


@click.command(
    "submit",
    epilog="Example: geohsal submit tile train query select my-run --manifest data_manifest.yaml "
    "--cluster cluster.yaml --dry-run",
)
@click.argument("stages", metavar="STAGES...", nargs=-1)
@options.run_argument
@click.option(
    "--cluster",
    metavar="FILE",
    type=options.PATH,
    help="What the jobs ask for (YAML); without it: the site's defaults, nothing shared out.",
)
@click.option("--manifest", metavar="FILE", type=options.PATH, help="Of a run not tiled yet.")
@click.option(
    "--budget",
    metavar="B",
    help="Of select; without it: that of the cluster file, else query.budget of the settings.",
)
@options.config
@options.overrides
@click.option("--cancel", "cancelling", is_flag=True, help="Cancel RUN's jobs in the queue.")
@options.dry_run
@options.reporting
def command(
    stages: tuple[str, ...],
    run_dir: Path,
    *,
    cluster: Path | None,
    manifest: Path | None,
    budget: str | None,
    config_source: str | None,
    overrides: tuple[str, ...],
    cancelling: bool,
    dry_run: bool,
    report: Report,
) -> None:
    """Submit STAGES of RUN to Slurm as a chain of jobs.

    STAGES are some of tile, train, query (scores), select (chooses), predict (to RUN/maps/r000 in
    round 0) and export (to RUN/polygons_r000.gpkg), in this order. The texts are kept in RUN/slurm,
    the logs in RUN/slurm/logs, the ids in RUN/jobs.json; --dry-run prints the texts and does
    nothing else. The same command again, once the jobs have ended, goes on where they stopped.
    """
    if cancelling:
        _cancel(run_dir, stages, report, dry_run=dry_run)
        return
    from geohsal.workflows.submit import submit

    summary = submit(
        run_dir,
        stages,
        cluster=cluster,
        config=config_source,
        overrides=overrides,
        manifest=manifest,
        budget=budget,
        dry_run=dry_run,
    )
    report.result(summary, _texts(summary) if dry_run else _submitted(summary))


def _cancel(run_dir: Path, stages: tuple[str, ...], report: Report, *, dry_run: bool) -> None:
    if stages or dry_run:
        raise click.UsageError("--cancel goes with a RUN alone")
    from geohsal.workflows.submit import cancel

    summary = cancel(run_dir)
    lines = [f"cancelled: {name} {job_id}" for name, job_id in summary.cancelled.items()]
    report.result(summary, lines or [f"{summary.run}: no job is in the queue"])


def _texts(summary: "SubmitSummary") -> Iterator[str]:
    """The texts, each under the line that would submit it."""
    yield from (f"# {note}" for note in summary.notes)
    before = ""
    for job in summary.jobs:
        yield f"# sbatch --parsable {before}{shlex.quote(str(job.script))}"
        yield job.text
        before = f"--dependency=afterok:<id of {job.name}> "


def _submitted(summary: "SubmitSummary") -> Iterator[str]:
    yield from summary.notes
    for job, job_id in zip(summary.jobs, summary.job_ids, strict=True):
        tasks = f", {job.tasks} tasks" if job.tasks > 1 else ""
        yield f"submitted: {job.name} {job_id}{tasks}"
    for stage, path in summary.outputs.items():
        yield f"{stage} writes: {path}"
    yield f"texts and logs: {summary.jobs[0].script.parent}"
    yield f"where it stands: geohsal status {shlex.quote(str(summary.run))}"
