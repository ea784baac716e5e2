"""What a query leaves in its round: review files with projects and pages, and the record last."""

from collections.abc import Sequence
from dataclasses import fields

from geohsal import __version__
from geohsal.config import FORMAT_VERSION
from geohsal.errors import DataError, RunError
from geohsal.geo.scene import QueryRegion
from geohsal.io.atomic import read_record, write_json
from geohsal.io.gpkg_read import is_edited
from geohsal.io.qgis_project import project_path, write_project
from geohsal.io.review_file import write_review
from geohsal.io.review_page import page_path, write_page
from geohsal.io.round_record import Answer, answers_path, write_answers, write_regions
from geohsal.io.run import Round
from geohsal.workflows.context import RunContext
from geohsal.workflows.query_summary import QuerySummary, summary_from
from geohsal.workflows.review_files import ReviewFile
from geohsal.workflows.round_rasters import RoundRasters


def finished(round_: Round, request: str, *, overwrite: bool, asked: str) -> QuerySummary | None:
    """The summary of the same query; None where another may be made.

    Raises:
        RunError: another request without `overwrite`, or an edited review file with it.
    """
    written = read_record(round_.query_json, "request", "summary")
    if written["request"] == request and not overwrite:
        return summary_from(written["summary"], round_)
    if not overwrite:
        before = written.get("asked", written["summary"]["budget"])
        how = f"budget {before}, not {asked}" if before != asked else "other settings or labels"
        raise RunError(
            f"{round_.dir}: round {round_.index} is already queried with {how}; review and ingest "
            "it, or use --overwrite while its review file is unedited"
        )
    for name in written["summary"]["files"]:
        path = round_.dir / name
        if path.exists() and is_edited(path):
            raise RunError(f"{path}: has been edited or is open in QGIS; ingest it or move it away")
    return None


def clear(round_: Round) -> None:
    """Take back a query that is about to be made anew; its review files are known as unedited."""
    if round_.query_json.exists():
        written = read_record(round_.query_json, "summary")
        round_.query_json.unlink()
        for name in written["summary"]["files"]:
            (round_.dir / name).unlink(missing_ok=True)
            project_path(round_.dir / name).unlink(missing_ok=True)
            page_path(round_.dir / name).unlink(missing_ok=True)


def move_maps(source: Round, target: Round) -> None:
    """Put the rasters and merged scenes of a round that was made elsewhere in the place of others.

    A merged scene goes before its rasters are replaced, and comes after them: never the two of
    different maps.

    Raises:
        DataError: the folder cannot be written.
    """
    parts = sorted(source.dir.glob("parts/*"))
    rasters = sorted(source.rasters.glob("*"))
    try:
        for path in parts:
            (target.dir / "parts" / path.name).unlink(missing_ok=True)
        for path in (*rasters, *parts):
            place = target.dir / path.relative_to(source.dir)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    except OSError as error:
        raise DataError(f"{target.dir}: cannot be written ({error.strerror or error})") from None


def write_round(
    context: RunContext,
    round_: Round,
    regions: Sequence[QueryRegion],
    *,
    files: Sequence[ReviewFile],
    request: str,
) -> None:
    """Review files with their projects and pages, and the round's own record of what was asked.

    Raises:
        RunError: a review file that stands there has been edited or is open.
        DataError: a file cannot be written, or a raster of the round is damaged.
    """
    answers: dict[str, Answer] = {}
    for file in files:
        prefilled = _write_file(context, round_, file, request)
        answers |= {answer.answer_id: answer for answer in prefilled}
    write_regions(round_.regions, regions, context.scenes)
    write_answers(answers_path(round_), list(answers.values()))


def _write_file(
    context: RunContext, round_: Round, file: ReviewFile, request: str
) -> Sequence[Answer]:
    scenes, manifest, config = context.scenes, context.manifest, context.config.output
    used = sorted({region.scene_id for region in file.regions})
    with RoundRasters(round_) as rasters:
        prefilled = write_review(
            file.path,
            regions=file.regions,
            scenes={scene_id: scenes[scene_id] for scene_id in used},
            maps=rasters.maps,
            classes=manifest.classes,
            config=config,
            provenance={
                "geohsal": __version__,
                "run": manifest.name,
                "request": request,
                "model_hash": read_record(round_.model_json, "model_hash")["model_hash"],
                **({"package": file.package} if file.package else {}),
            },
        )
        write_project(file.path, round_=round_, classes=manifest.classes)
        write_page(
            file.path,
            round_=round_,
            regions=file.regions,
            scenes=scenes,
            maps=rasters.maps,
            classes=manifest.classes,
            config=config,
            run=manifest.name,
            request=request,
        )
    return prefilled


def write_record(
    round_: Round,
    summary: QuerySummary,
    *,
    request: str,
    packages: Sequence[Sequence[str]],
    asked: str,
) -> None:
    """query.json, last: from then on the round is queried."""
    values = {field.name: getattr(summary, field.name) for field in fields(summary)}
    values["files"] = [path.name for path in summary.files]
    write_json(
        round_.query_json,
        {
            "format_version": FORMAT_VERSION,
            "request": request,
            "asked": asked,
            "summary": values,
            "packages": packages,
        },
    )
