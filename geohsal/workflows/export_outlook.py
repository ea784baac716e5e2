"""`geohsal export --dry-run`: what an export would read, cut and write."""

from pathlib import Path

from geohsal.workflows.engine import parse_shard
from geohsal.workflows.export import ExportJob, ExportSummary, export_folder, open_export
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
    chunk_ids, done = _cut_before(job)
    own = chunk_ids if share is None else chunk_ids[share.index :: share.count]
    return ExportOutlook(
        out=out,
        round=summary.round,
        up_to_date=False,
        shard=shard,
        scenes=summary.scenes,
        skipped=summary.skipped,
        parts_done=len(done),
        parts_now=len(set(own) - done),
        raster_bytes=_bytes(job, summary),
    )


def _cut_before(job: ExportJob) -> tuple[tuple[str, ...], set[str]]:
    """All parts, and those that are there."""
    folder, inputs = export_folder(job.out), job.inputs()
    chunk_ids = tuple(job.work.plan(inputs).chunk_ids)
    by_chunk = zip(chunk_ids, inputs.values(), strict=True)
    return chunk_ids, {name for name, hashes in by_chunk if job.is_cut(folder, name, hashes)}


def _bytes(job: ExportJob, summary: ExportSummary) -> int:
    work = job.work
    return sum(
        path.stat().st_size
        for name in summary.scenes
        for path in input_paths(work.run, work.round, name, what=work.what)
    )
