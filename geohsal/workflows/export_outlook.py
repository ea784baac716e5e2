"""`geohsal export --dry-run`: what an export would read, cut and write."""

from collections.abc import Sequence
from pathlib import Path

from geohsal.workflows.engine import parse_shard
from geohsal.workflows.export import ExportJob, export_folder, open_export
from geohsal.workflows.export_scene import What
from geohsal.workflows.export_work import input_paths
from geohsal.workflows.outlooks import ExportOutlook


def foresee_export(
    run_dir: Path,
    out: Path,
    *,
    what: What = "refined",
    sieve_px: int | None = None,
    simplify_px: float | None = None,
    overwrite: bool = False,
    shard: str | None = None,
) -> ExportOutlook:
    """What `export` would do with the same arguments; hashes files, changes nothing.

    Raises:
        RequestError, RunError, DataError: as `export` would.
    """
    share = None if shard is None else parse_shard(shard)
    job, summary = open_export(run_dir, out, what=what, sieve_px=sieve_px, simplify_px=simplify_px)
    if job.is_there(overwrite=overwrite):
        return ExportOutlook(out=out, round=summary.round, up_to_date=True, scenes=summary.scenes)
    done = _cut_before(job)
    own = summary.scenes if share is None else share.of(summary.scenes)
    now = tuple(name for name in own if name not in done)
    return ExportOutlook(
        out=out,
        round=summary.round,
        up_to_date=False,
        shard=shard,
        scenes=summary.scenes,
        skipped=summary.skipped,
        parts_done=len(done),
        parts_now=len(now),
        scenes_now=now,
        raster_bytes=_bytes(job, now),
    )


def _cut_before(job: ExportJob) -> set[str]:
    """Scenes whose parts are there: the plan has one chunk of each, in their order."""
    folder, inputs = export_folder(job.out), job.inputs()
    by_scene = zip(inputs.items(), job.work.plan(inputs).chunk_ids, strict=True)
    return {name for (name, hashes), chunk_id in by_scene if job.is_cut(folder, chunk_id, hashes)}


def _bytes(job: ExportJob, scenes: Sequence[str]) -> int:
    work = job.work
    return sum(
        path.stat().st_size
        for name in scenes
        for path in input_paths(work.run, work.round, name, what=work.what)
    )
