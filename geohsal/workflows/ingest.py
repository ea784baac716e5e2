"""`geohsal ingest`: reviewed regions become labels, once, in an order that a kill cannot break."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from geohsal.errors import RequestError, ReviewError, RunError
from geohsal.geo.budget import counted
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.atomic import read_record
from geohsal.io.conflict_file import conflict_set, read_conflicts_origin
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.lock import changing
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.review_decisions import SUFFIX, read_decided, read_decided_origin
from geohsal.io.review_origin import Asked, Origin, foreign, read_origin
from geohsal.io.review_read import ReviewedRound, read_reviews
from geohsal.io.review_rows import read_file
from geohsal.io.review_source import Source, gather, is_conflicts, short_names
from geohsal.io.round_record import answers_path, read_answers, read_regions
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes, read_config
from geohsal.workflows.diagnose import diagnose_answers, diagnostics_path, forget_answers
from geohsal.workflows.diagnose_lines import short_lines
from geohsal.workflows.ingest_record import (
    burnt_pixels,
    close_round,
    entries_of,
    outdated_conflicts,
    rebuild,
    record_conflicts,
    record_entries,
    take_back,
)
from geohsal.workflows.ingest_settle import read_settled, refuse_others, settle_review, settle_round
from geohsal.workflows.ingest_summary import IngestSummary, conflict_notes, summary_of
from geohsal.workflows.review_files import not_handed_in, review_files
from geohsal.workflows.review_time import prices_of
from geohsal.workflows.review_worth import label_changes, region_worths, review_worth
from geohsal.workflows.standing import interrupted_undo, refuse_half_undone, standing
from geohsal.workflows.stop_advice import stop_advice


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What was handed in, by kind, and what each says of itself; `origins` are of the first two."""

    reviews: tuple[Source, ...]
    decisions: Mapping[Path, Origin]
    conflicts: Mapping[Path, Origin]
    origins: tuple[Origin, ...]

    def __str__(self) -> str:
        paths = [path for source in self.reviews for path in source.paths]
        return ", ".join(str(path) for path in [*paths, *self.decisions, *self.conflicts])


def ingest(
    run_dir: Path,
    reviewed: Sequence[Path] = (),
    *,
    undo: bool = False,
    accept_valid: bool = False,
    accept_partial: bool = False,
    dry_run: bool = False,
) -> IngestSummary:
    """Take the reviewed files of the queried round in, or take the last ingest back.

    Args:
        run_dir: the run.
        reviewed: its reviewed files: several for local scenes, or where people shared the work;
            also decisions.csv of the review page, and conflicts_rNNN.gpkg with settled rows.
        undo: take the last ingest back instead; only until the next round has trained.
        accept_valid: leave out rows that have problems and take the rest.
        accept_partial: go on although not every file of the round is given; what only the
            others ask about counts as to do.
        dry_run: check and report, change nothing.

    Raises:
        RequestError: files and `undo` together, or neither.
        RunError: the round is not queried; other files of it are in; nothing to take back.
        BusyError: another command is changing the run.
        ReviewError: the files do not fit, have problems, one is missing, or no region is done.
    """
    if undo == bool(reviewed):
        raise RequestError("give the reviewed files, or --undo and no file")
    run = open_run(run_dir)
    manifest = load_manifest(run.manifest)
    given = None if undo else _sort(reviewed, manifest)
    command = "ingest" if given else "ingest --undo"
    with nullcontext() if dry_run else changing(run, command):
        if given is None:
            return _undo(run, manifest, dry_run)
        done = _already_in(run, manifest, given, dry_run)
        if done is not None:
            return done
        return _Ingest(run, manifest, given).take(
            accept_valid=accept_valid, accept_partial=accept_partial, dry_run=dry_run
        )


def _sort(paths: Sequence[Path], manifest: Manifest) -> _Given:
    """Tell reviews, decisions and conflicts apart."""
    decisions = tuple(path for path in paths if path.suffix.lower() == SUFFIX)
    rest = [path for path in paths if path not in decisions]
    conflicts = tuple(path for path in rest if is_conflicts(path))
    names = short_names(paths)
    reviews = tuple(
        replace(source, label=" + ".join(names[path] for path in source.paths))
        for source in gather([path for path in rest if path not in conflicts])
    )
    decided = {p: replace(read_decided_origin(p), name=names[p]) for p in decisions}
    of_conflicts = {p: replace(read_conflicts_origin(p), name=names[p]) for p in conflicts}
    for path, origin in of_conflicts.items():
        other = foreign(origin.run, manifest.name)
        if other:
            raise ReviewError(f"{path}: {other}")
    return _Given(
        reviews=reviews,
        decisions=decided,
        conflicts=of_conflicts,
        origins=(*map(read_origin, reviews), *decided.values()),
    )


def _already_in(run: Run, manifest: Manifest, given: _Given, dry_run: bool) -> IngestSummary | None:
    """The outcome for files of rounds that are ingested; None where there is a round to take."""
    current = run.current.index
    for index in range(current):
        known = read_record(run.round(index).ingest_json, "files")["files"]
        new = [item for item in given.origins if item.content not in known.values()]
        settle = {path: item for path, item in given.conflicts.items() if item.round == index}
        unsettled = {
            path: item for path, item in settle.items() if item.content not in known.values()
        }
        names = ", ".join(sorted(known))
        for item in new:
            other = foreign(item.run, manifest.name)
            if item.round == index and other:
                raise ReviewError(f"{item.name}: {other}")
        if any(item.round == index for item in new):
            last = index == current - 1 and run.current.step == "tiled"
            undo = f"geohsal ingest {shlex.quote(str(run.path))} --undo"
            back = f"take that back first ({undo}), or " if last else ""
            raise RunError(
                f"{run.path}: round {index} is already ingested from {names}; {back}give round "
                f"{current}'s files"
            )
        if new or len(settle) < len(given.conflicts):
            continue
        if not standing(run, index):
            raise interrupted_undo(run, index)
        if unsettled:
            summary = settle_round(run, manifest, run.round(index), unsettled, dry_run=dry_run)
            return summary if dry_run else _diagnosed(run, run.round(index), summary)
        note = f"round {index} holds the answers of {names} already"
        if not (dry_run or diagnostics_path(run.round(index)).exists()):  # killed before them
            diagnose_answers(run, run.round(index))
        return IngestSummary(action="nothing", round=index, notes=(note,))
    return None


class _Ingest:
    """One ingest under way: the round under review and what its parts share."""

    def __init__(self, run: Run, manifest: Manifest, given: _Given) -> None:
        self.run = run
        self.manifest = manifest
        self.given = given
        self.round: Round = run.current
        self._check_step()
        self.config = read_config(run)
        self.scenes: dict[str, Scene] = dict(load_scenes(run))
        self.regions: list[QueryRegion] = read_regions(self.round.regions)
        query = read_record(self.round.query_json)
        self.packages: list[list[str]] = query.get("packages") or []
        used = sorted({region.scene_id for region in self.regions})
        self.asked = Asked(
            index=self.round.index,
            request=query.get("request"),
            regions={region.region_id: region for region in self.regions},
            answers={item.answer_id: item for item in read_answers(answers_path(self.round))},
            scenes={name: self.scenes[name] for name in used},
            num_classes=manifest.num_classes,
            run=manifest.name,
            packages=tuple(frozenset(names) for names in self.packages),
        )

    def _check_step(self) -> None:
        run, round_ = self.run, self.round
        refuse_half_undone(run)
        if round_.step != "queried":
            todo = "train" if round_.step == "tiled" else "query"
            raise RunError(
                f"{run.path}: round {round_.index} is {round_.step}, nothing of it is under "
                f"review; run: geohsal {todo} {run.path}"
            )

    def take(self, *, accept_valid: bool, accept_partial: bool, dry_run: bool) -> IngestSummary:
        """Check, then write: ledger, labels, conflicts, and the round's record last."""
        review = self._read(accept_valid)
        missing = self._missing(review, accept_partial)
        differing = [item for item in review.regions if item.conflict.any()]
        refuse_others(self.given.conflicts, conflict_set(differing))
        old = outdated_conflicts(self.round, differing)
        settled = read_settled(
            list(self.given.conflicts),
            self.regions,
            scenes=self.scenes,
            num_classes=self.manifest.num_classes,
        )
        review, settled_pixels = settle_review(review, settled)
        ledger = read_ledger(self.run.ledger)
        before = [e for e in active_entries(ledger) if e.round != self.round.index]
        worths = region_worths(self.round, review.regions, num_classes=self.asked.num_classes)
        entries = entries_of(review, ledger, worths)
        conflicts = [item for item in review.regions if item.conflict.any()]
        names = self.manifest.class_names
        done = {item.region.region_id for item in review.regions if item.status == "done"}
        summary = summary_of(
            review,
            self.manifest,
            action="would ingest" if dry_run else "ingested",
            changes=label_changes(self.run, review.regions, before, names),
            notes=(*missing, *conflict_notes(review), *self._kept(old)),
            worth=review_worth(item for name, item in worths.items() if name in done),
            settled_pixels=settled_pixels,
            conflict_file=self.round.conflicts if conflicts else None,
            prices=str(prices_of([*before, *entries], self.config.cost)),
        )
        if not dry_run:
            touched = record_entries(self.run, self.round, ledger, entries)
            rebuild(self.run, self.manifest, self.scenes, touched)
            record_conflicts(
                self.round, differing, self.manifest, self.scenes, settled=not conflicts
            )
            contents = {item.name: item.content for item in self.given.conflicts.values()}
            close_round(
                self.round,
                summary,
                contents={**review.contents, **contents},
                conflicts=conflicts,
                listed=conflict_set(differing),
            )
            return _diagnosed(self.run, self.round, summary)
        return summary

    def _kept(self, old: Path | None) -> tuple[str, ...]:
        """A word on a conflicts file of other differences."""
        name = self.round.conflicts.name
        return (
            () if old is None else (f"{name} was of other differences; it is kept as {old.name}",)
        )

    def _read(self, accept_valid: bool) -> ReviewedRound:
        for path, origin in self.given.conflicts.items():
            if origin.round != self.round.index:
                raise ReviewError(
                    f"{path}: belongs to round {origin.round}, but round {self.round.index} is the "
                    "one under review; ingest it alone"
                )
        files = [read_file(source, self.asked) for source in self.given.reviews]
        sieve_px = self.config.output.sieve_px
        files += [
            read_decided(path, self.asked, round_=self.round, sieve_px=sieve_px, name=origin.name)
            for path, origin in self.given.decisions.items()
        ]
        review = read_reviews(files, self.asked, accept_valid=accept_valid)
        counts = review.counts
        if not counts.done:
            raise ReviewError(
                f"{self.given}: no region is done ({counts.todo} todo, {counts.unsure} unsure, "
                f"{counts.skipped} skipped); set status to done and save"
            )
        return review

    def _missing(self, review: ReviewedRound, accept_partial: bool) -> tuple[str, ...]:
        """A word on files of the round that were not given.

        Raises:
            ReviewError: there are some, without `accept_partial`.
        """
        files = review_files(self.round, self.regions, self.scenes, self.packages)
        missing = not_handed_in(files, review.given)
        if not missing:
            return ()
        names = ", ".join(
            f"{file.path.name} ({counted(len(file.regions), 'region')})" for file in missing
        )
        verb = "is" if len(missing) == 1 else "are"
        if not accept_partial:
            raise ReviewError(
                f"{self.given}: {names} {verb} missing; give all files of the round in one "
                "command, or go on without with --accept-partial"
            )
        return (f"{names} {verb} missing; what only they ask about counts as to do",)


def _diagnosed(run: Run, round_: Round, summary: IngestSummary) -> IngestSummary:
    """The summary with how good maps and questions were, and whether to ask again."""
    found = diagnose_answers(run, round_)
    advice = stop_advice(run)
    return replace(
        summary,
        diagnostics=short_lines(found) if found else (),
        advice=advice.message if advice else "",
    )


def _undo(run: Run, manifest: Manifest, dry_run: bool) -> IngestSummary:
    """Take the last ingest back; ingest.json goes last, so that a killed undo can be repeated."""
    current = run.current
    half_done = bool(standing(run, current.index))
    target = current if half_done or current.index == 0 else run.round(current.index - 1)
    if not half_done and current.index == 0:
        raise RunError(f"{run.path}: no round has been ingested, there is nothing to take back")
    if not half_done and current.step != "tiled":
        refuse_half_undone(run)
        raise RunError(
            f"{run.path}: round {current.index} has trained on the answers of round "
            f"{target.index}; they can no longer be taken back"
        )
    ledger = read_ledger(run.ledger)
    own = [e for e in ledger if e.event == "ingest" and e.round == target.index]
    taken = standing(run, target.index)
    rest = [e for e in active_entries(ledger) if e.round != target.index]
    summary = IngestSummary(
        action="would undo" if dry_run else "undone",
        round=target.index,
        done=sum(entry.status == "done" for entry in taken),
        labelled_pixels=burnt_pixels(taken),
        prices=str(prices_of(rest, read_config(run).cost)),
    )
    if dry_run:
        return summary
    if taken:
        take_back(run, target)
    rebuild(run, manifest, load_scenes(run), {entry.scene_id for entry in own})
    forget_answers(target)
    target.ingest_json.unlink(missing_ok=True)
    return summary
