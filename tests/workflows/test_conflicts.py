"""Where people who share a round differ, and how that is settled."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from review_factory import person
from shared_round import burnt, copy_of, follows_the_ledger, reviewed
from tiny_run import geohsal

from geohsal.errors import ReviewError, RunError
from geohsal.io.atomic import write_json
from geohsal.io.conflict_file import is_settled
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.run import Run
from geohsal.workflows.ingest import ingest
from geohsal.workflows.status import status


@pytest.fixture
def run(shared_out: Run, tmp_path: Path) -> Run:
    return copy_of(shared_out, tmp_path)


def settle(path: Path, class_id: int, count: int | None = None) -> int:
    """Give conflicts a class, all or the first few; tells how many pixels that settles."""
    with person(path, "conflicts") as frame:
        rows = frame.index[:count]
        frame.loc[rows, "assigned_class"] = class_id
        return int(frame.loc[rows, "pixels"].sum())


def test_settled_conflicts_are_taken_in_later(run: Run, tmp_path: Path) -> None:
    before = ingest(run.path, reviewed(run))
    conflicts = run.round(0).conflicts
    with pytest.raises(ReviewError, match="nothing in it is settled; set assigned_class, save"):
        ingest(run.path, [conflicts])
    labels = burnt(run)
    pixels = settle(conflicts, 3, 1)
    assert is_settled(conflicts)
    dry = ingest(run.path, [conflicts], dry_run=True)
    assert (dry.action, dry.settled_pixels) == ("would settle", pixels)
    said = geohsal("ingest", run.path, conflicts)
    left = before.conflict_pixels - pixels
    assert said.stdout == (
        f"round 0 settled: {pixels:,} px in which reviewers differed; {left:,} px stay unknown\n"
    )
    after = burnt(run)
    changed = sum(int((after[name] != labels[name]).sum()) for name in labels)
    assert changed == pixels
    assert follows_the_ledger(run)
    assert ingest(run.path, [conflicts]).action == "nothing"
    rest = settle(conflicts, 3) - pixels
    assert ingest(run.path, [*reviewed(run), conflicts]).settled_pixels == rest
    final = burnt(run)
    summary = status(run.path)
    assert summary.rounds[0].regions == 10
    assert summary.spent_ha is not None
    assert ingest(run.path, undo=True).action == "undone"
    assert follows_the_ledger(run)
    assert not active_entries(read_ledger(run.ledger))
    together = ingest(run.path, [*reviewed(run), conflicts])
    assert (together.settled_pixels, together.conflict_pixels) == (before.conflict_pixels, 0)
    assert follows_the_ledger(run)
    assert all(np.array_equal(found, final[name]) for name, found in burnt(run).items())
    write_json(run.round(1).model_json, {})
    settle(conflicts, 2)
    with pytest.raises(RunError, match="round 1 has trained already; differences of round 0 can"):
        ingest(run.path, [conflicts])


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize(
    "step", ["ingest_settle.append", "ingest_settle.rebuild", "ingest_settle.write_json"]
)
@pytest.mark.parametrize("after", [False, True])
def test_killed_settling_is_finished_by_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    ingest(run.path, reviewed(run))
    pixels = settle(run.round(0).conflicts, 3)
    kill(monkeypatch, step, after)
    with pytest.raises(Killed):
        ingest(run.path, [run.round(0).conflicts])
    monkeypatch.undo()
    again = ingest(run.path, [run.round(0).conflicts])
    assert again.settled_pixels == pixels or again.action == "nothing"
    assert follows_the_ledger(run)
    settled = [e for e in active_entries(read_ledger(run.ledger)) if e.status == "settled"]
    assert sum(entry.labelled_pixels for entry in settled) == pixels
    assert ingest(run.path, [run.round(0).conflicts]).action == "nothing"


@pytest.mark.parametrize("after", [False, True])
def test_an_ingest_killed_at_the_conflicts_is_finished_by_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    kill(monkeypatch, "ingest_record.write_conflicts", after)
    with pytest.raises(Killed):
        ingest(run.path, reviewed(run))
    monkeypatch.undo()
    assert run.current.index == 0
    assert ingest(run.path, reviewed(run)).conflict_pixels > 0
    assert run.round(0).conflicts.exists()
    assert len(read_ledger(run.ledger)) == 10


def kill(monkeypatch: pytest.MonkeyPatch, step: str, after: bool) -> None:
    """End the process before or after a step."""
    module, name = step.split(".")
    place = importlib.import_module(f"geohsal.workflows.{module}")
    real = getattr(place, name)

    def dies(*args: object, **kwargs: object) -> None:
        if after:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(place, name, dies)


def test_a_file_that_somebody_is_settling_is_never_replaced(run: Run) -> None:
    ingest(run.path, reviewed(run))
    settle(run.round(0).conflicts, 1, 1)
    kept = run.round(0).conflicts.read_bytes()
    ingest(run.path, undo=True)
    ingest(run.path, reviewed(run))
    assert run.round(0).conflicts.read_bytes() == kept


def test_a_file_of_other_differences_is_kept_aside_and_not_taken(run: Run) -> None:
    ingest(run.path, reviewed(run))
    conflicts = run.round(0).conflicts
    settle(conflicts, 1, 1)
    stale = conflicts.read_bytes()
    ingest(run.path, undo=True)
    with person(reviewed(run)[1], "answers") as frame:
        frame["assigned_class"] = 0
    with pytest.raises(ReviewError, match=r"conflicts_r000.gpkg: lists other differences than the"):
        ingest(run.path, [*reviewed(run), conflicts])
    wal = conflicts.with_name(conflicts.name + "-wal")
    wal.touch()
    with pytest.raises(ReviewError, match="open in another program; close it there"):
        ingest(run.path, reviewed(run))
    wal.unlink()
    said = geohsal("ingest", run.path, *reviewed(run)).stdout
    old = conflicts.with_suffix(".old.gpkg")
    assert f"{conflicts.name} was of other differences; it is kept as {old.name}" in said
    assert old.read_bytes() == stale
    assert not is_settled(conflicts)
    with pytest.raises(ReviewError, match=r"r000.old.gpkg: lists other differences than these"):
        ingest(run.path, [old])
    pixels = settle(conflicts, 3)
    assert ingest(run.path, [conflicts]).settled_pixels == pixels


def test_a_pixel_that_is_settled_twice_is_taken_back_once(run: Run) -> None:
    ingest(run.path, reviewed(run))
    for class_id in (3, 1):
        settle(run.round(0).conflicts, class_id)
        ingest(run.path, [run.round(0).conflicts])
    ingested = sum(int((found != 255).sum()) for found in burnt(run).values())
    taken = ingest(run.path, undo=True).labelled_pixels
    before = sum(int((found != 255).sum()) for found in burnt(run).values())
    assert taken == ingested - before


def test_copies_of_one_name_are_told_apart_and_known_again(run: Run) -> None:
    copies = []
    for folder, path in zip(("A", "B"), reviewed(run), strict=True):
        copies.append(path.parent / folder / "queries_r000.gpkg")
        copies[-1].parent.mkdir()
        path.rename(copies[-1])
    summary = ingest(run.path, copies)
    assert summary.files == ("A/queries_r000.gpkg", "B/queries_r000.gpkg")
    assert summary.agreement[0].first.startswith("A/queries_r000.gpkg")
    for files in (copies, copies[:1], copies[1:]):
        assert ingest(run.path, files).action == "nothing"


def test_wrong_settlements_are_named(run: Run) -> None:
    ingest(run.path, reviewed(run))
    settle(run.round(0).conflicts, 77, 1)
    with pytest.raises(ReviewError, match=r"conflicts feature 1: assigned_class 77\S* is not a cl"):
        ingest(run.path, [run.round(0).conflicts])


def test_status_reminds_of_conflicts_until_they_are_settled(run: Run) -> None:
    summary = ingest(run.path, reviewed(run))
    words = f"{summary.conflict_pixels:,} px in which reviewers of round 0 differ can be settled"
    assert words in status(run.path).next_step
    settle(run.round(0).conflicts, 3)
    ingest(run.path, [run.round(0).conflicts])
    assert status(run.path).next_step == "train round 1"
