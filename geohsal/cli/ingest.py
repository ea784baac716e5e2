"""`geohsal ingest`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.query.agreement import Agreement
    from geohsal.workflows.ingest_summary import IngestSummary


@click.command("ingest")
@options.run_argument
@click.argument("files", metavar="[REVIEWED.gpkg]...", type=options.PATH, nargs=-1)
@click.option("--undo", is_flag=True, help="Take the last ingest back (no file).")
@click.option(
    "--accept-valid",
    is_flag=True,
    help="Leave out rows that have problems (they are listed) and take the rest.",
)
@click.option(
    "--accept-partial",
    is_flag=True,
    help="Go on although files of the round are missing; their regions stay to do.",
)
@options.dry_run
@options.reporting
def command(
    run_dir: Path,
    *,
    files: tuple[Path, ...],
    undo: bool,
    accept_valid: bool,
    accept_partial: bool,
    dry_run: bool,
    report: Report,
) -> None:
    """Check reviewers' edits, add them to labels and ledger, and open the next round of RUN.

    Takes all files of the round at once: packages, scenes without a position, decisions.csv of the
    review page, and conflicts_rNNN.gpkg once the differences in it are settled.
    """
    if undo == bool(files):
        raise click.UsageError("give the reviewed files, or --undo and no file")
    from geohsal.workflows.ingest import ingest

    summary = ingest(
        run_dir,
        files,
        undo=undo,
        accept_valid=accept_valid,
        accept_partial=accept_partial,
        dry_run=dry_run,
    )
    report.result(summary, ingest_lines(summary))


def ingest_lines(summary: "IngestSummary") -> Iterator[str]:
    """What was taken, what it is worth, where reviewers differ, and what comes next."""
    from geohsal.geo.budget import counted

    if summary.action == "nothing":
        yield f"nothing to do: {'; '.join(summary.notes)}"
        return
    if summary.action in ("undone", "would undo"):
        done = "taken back" if summary.action == "undone" else "would be taken back"
        yield (
            f"round {summary.round} {done} and under review again: "
            f"{counted(summary.done, 'done region')} ({summary.labelled_pixels:,} px)"
        )
        return
    if summary.action in ("settled", "would settle"):
        done = "settled" if summary.action == "settled" else "would be settled"
        yield (
            f"round {summary.round} {done}: {summary.settled_pixels:,} px in which "
            f"reviewers differed; {summary.conflict_pixels:,} px stay unknown"
        )
        return
    done = "ingested" if summary.action == "ingested" else "would be ingested"
    yield (
        f"round {summary.round} {done} from {', '.join(summary.files)}: "
        f"{counted(summary.done, 'region')} done, {summary.unsure} unsure, {summary.skipped} "
        f"skipped, {summary.todo} to do"
    )
    yield from _taken(summary)
    yield from summary.diagnostics or _worth(summary)
    for item in summary.agreement:
        yield from _agreement(item, summary.classes)
    yield from summary.changed_labels
    yield from summary.notes
    if summary.conflict_file is not None:
        yield (
            f"to settle: {summary.conflict_file}; set the class of each polygon and give the file "
            "to ingest before the next round is trained"
        )
    yield f"review time: {summary.prices}"
    if summary.advice:
        yield f"advice: {summary.advice}"


def _taken(summary: "IngestSummary") -> Iterator[str]:
    yield (
        f"answers: {summary.accepted} accepted, {summary.corrected} corrected, {summary.added} "
        f"added, {summary.deleted} deleted"
    )
    if summary.problems:
        yield f"left out, because something is wrong ({summary.left_out}):"
        yield from (f"  {problem}" for problem in summary.problems)
    pixels = ", ".join(f"{name} {count:,}" for name, count in (summary.class_pixels or {}).items())
    yield f"labelled {summary.labelled_pixels:,} px: {pixels}"
    settled = f"; {summary.settled_pixels:,} px settled" if summary.settled_pixels else ""
    differ = f", {summary.conflict_pixels:,} of them because reviewers differ"
    yield (
        f"unknown in done regions: {summary.unknown_pixels:,} px"
        f"{differ if summary.conflict_pixels else ''}{settled}"
    )


def _worth(summary: "IngestSummary") -> Iterator[str]:
    worth = summary.worth
    if worth is None:
        return
    shares = [
        f"{share:.1%} of {pixels:,} px {where}"
        for share, pixels, where in (
            (worth.asked_teacher_wrong, worth.asked_pixels, "in chosen regions"),
            (worth.audit_teacher_wrong, worth.audit_pixels, "in random ones"),
        )
        if share is not None
    ]
    yield f"the teacher had been wrong in {', '.join(shares) or 'nothing: no pixel got a class'}"
    refined = [
        f"{share:.1%} {where}"
        for share, where in (
            (worth.asked_refined_wrong, "in chosen regions"),
            (worth.audit_refined_wrong, "in random ones"),
        )
        if share is not None
    ]
    if refined:
        yield f"the refined map in {', '.join(refined)}"


def _agreement(item: "Agreement", classes: tuple[str, ...]) -> Iterator[str]:
    from geohsal.geo.budget import counted

    kappa = "not defined (one class only)" if item.kappa is None else f"{item.kappa:.3f}"
    share = f"{item.agreed / item.pixels:.1%} of " if item.pixels else ""
    yield (
        f"agreement of {item.first} and {item.second}: {share}{item.pixels:,} px in "
        f"{counted(item.regions, 'region')}, kappa {kappa}"
    )
    used = [
        number
        for number in range(len(classes))
        if any(item.confusion[number]) or any(row[number] for row in item.confusion)
    ]
    if not used:
        return
    width = max(len(classes[number]) for number in used)
    cells = max(7, *(len(classes[number]) for number in used))
    yield f"  {'':{width}}  " + " ".join(f"{classes[number]:>{cells}}" for number in used)
    for row in used:
        values = " ".join(f"{item.confusion[row][column]:>{cells},}" for column in used)
        yield f"  {classes[row]:{width}}  {values}"
