import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geohsal.errors import DataError
from geohsal.io.label_store import FIRST_ANSWER_REGION, LabelArrays, empty_labels
from geohsal.io.ledger import (
    LedgerEntry,
    active_entries,
    append,
    decode_classes,
    encode_classes,
    next_region_number,
    read_ledger,
    replay,
)

SIDE = 12
CLASSES = hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255]))


def entry(round_: int = 0, *, number: int = 1, classes=None, row: int = 0, col: int = 0):
    burnt = np.zeros((2, 2), dtype=np.uint8) if classes is None else classes
    return LedgerEntry(
        event="ingest",
        round=round_,
        time="2026-01-02T03:04:05Z",
        scene_id="north",
        region_id=f"north/{row}/{col}",
        region_number=number,
        cell=(row, col, *burnt.shape),
        pixels=burnt.size,
        labelled_pixels=int((burnt != 255).sum()),
        unknown_pixels=int((burnt == 255).sum()),
        area_m2=3600.5,
        seconds=20.0,
        status="done",
        audit=True,
        classes_rle=encode_classes(burnt),
        reviewer="Zoë",
        reviewed_ms=None,
        source="queries_r000.gpkg",
    )


def undo(round_: int) -> LedgerEntry:
    return LedgerEntry(event="undo", round=round_, time="2026-01-02T04:00:00Z")


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(1, 9))))
def test_classes_survive_run_lengths(classes):
    height, width = classes.shape
    text = encode_classes(classes)
    np.testing.assert_array_equal(decode_classes(text, height=height, width=width), classes)


def test_run_lengths_are_readable():
    assert encode_classes(np.array([[255, 255, 3], [3, 3, 1]], dtype=np.uint8)) == "255*2 3*3 1*1"


@pytest.mark.parametrize("text", ["255*3", "x*4", "300*4", "1*-4", "4", "1*2 2*2*2"])
def test_damaged_run_lengths_are_named(text):
    with pytest.raises(DataError, match="the classes of a 2 x 2 cell are damaged"):
        decode_classes(text, height=2, width=2)


def test_entries_come_back_and_lines_are_only_added(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert read_ledger(path) == []
    append(path, [])
    assert not path.exists()
    append(path, [entry(0), entry(0, number=2, row=4)])
    first = path.read_bytes()
    append(path, [undo(0)])
    append(path, [entry(0, number=3)])
    assert path.read_bytes().startswith(first)
    assert read_ledger(path) == [
        entry(0),
        entry(0, number=2, row=4),
        undo(0),
        entry(0, number=3),
    ]
    line = json.loads(first.splitlines()[0])
    assert line["format_version"] == 1
    assert line["reviewer"] == "Zoë"


@settings(max_examples=40)
@given(st.data())
def test_a_kill_at_any_byte_leaves_whole_batches(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run") / "ledger.jsonl"
    append(path, [entry(0), entry(0, number=2)])
    safe = path.stat().st_size
    append(path, [entry(1, number=3), entry(1, number=4), entry(1, number=5)])
    full = path.read_bytes()
    cut = data.draw(st.integers(safe, len(full)))
    path.write_bytes(full[:cut])
    kept = read_ledger(path)
    assert len(kept) == (5 if cut == len(full) else 2)
    append(path, [entry(2, number=9)])
    assert read_ledger(path) == [*kept, entry(2, number=9)]
    assert not path.read_bytes().count(b"}{")


def test_damage_inside_is_not_passed_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append(path, [entry(0)])
    append(path, [entry(1)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:40] + b"\n" + lines[1])
    with pytest.raises(DataError, match=r"ledger\.jsonl: line 1: damaged"):
        read_ledger(path)
    with pytest.raises(DataError, match="line 1: damaged"):
        append(path, [entry(2)])


def test_a_missing_line_of_a_batch_is_noticed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append(path, [entry(0), entry(0, number=2), entry(0, number=3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(DataError, match="line 2: entries are missing before it"):
        read_ledger(path)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    append(path, [entry(0)])
    path.write_text(
        path.read_text("utf-8").replace('"format_version": 1', '"format_version": 2'), "utf-8"
    )
    with pytest.raises(DataError, match=r"written by a newer geohsal \(format 2\); update it"):
        read_ledger(path)


def test_undo_takes_back_earlier_entries_of_its_round_only():
    history = [entry(0), entry(1, number=2), undo(1), entry(1, number=3)]
    assert active_entries(history) == [entry(0), entry(1, number=3)]
    assert active_entries([undo(0)]) == []


def test_region_numbers_are_never_used_twice():
    history = [entry(0, number=FIRST_ANSWER_REGION + 4), undo(0)]
    assert next_region_number([], "north") == FIRST_ANSWER_REGION
    assert next_region_number(history, "north") == FIRST_ANSWER_REGION + 5
    assert next_region_number(history, "south") == FIRST_ANSWER_REGION


OFFSETS = st.tuples(st.integers(0, SIDE - 4), st.integers(0, SIDE - 5))


@settings(max_examples=60)
@given(
    hnp.arrays(np.uint8, (SIDE, SIDE), elements=st.sampled_from([0, 1, 255])),
    st.lists(st.tuples(OFFSETS, CLASSES, st.integers(0, 3)), max_size=8),
    st.sets(st.integers(0, 3)),
)
def test_replay_equals_the_mask_that_was_written_step_by_step(base, answers, undone):
    labels = empty_labels((SIDE, SIDE))
    labels.classes[:] = base
    mask = labels.copy()
    answers = sorted(answers, key=lambda answer: answer[2])
    history = []
    for number, ((row, col), classes, round_) in enumerate(answers, start=1):
        history.append(entry(round_, number=number, classes=classes, row=row, col=col))
    for round_ in undone:
        history.append(undo(round_))
    for number, ((row, col), classes, round_) in enumerate(answers, start=1):
        if round_ in undone:
            continue
        for (down, right), class_id in np.ndenumerate(classes):
            if class_id != 255:
                mask.classes[row + down, col + right] = class_id
                mask.regions[row + down, col + right] = number
                mask.rounds[row + down, col + right] = round_
    assert replay(labels, history).equals(mask)
    np.testing.assert_array_equal(labels.classes, base)
    for top in range(0, SIDE, 5):
        part = slice(top, top + 5)
        some, expected = (
            LabelArrays(classes=m.classes[part], regions=m.regions[part], rounds=m.rounds[part])
            for m in (labels, mask)
        )
        assert replay(some, history, top=top, height=SIDE).equals(expected), "rows of the scene"


def test_a_region_outside_the_scene_is_named():
    labels: LabelArrays = empty_labels((3, 3))
    with pytest.raises(DataError, match="region north/2/2 reaches outside scene north"):
        replay(labels, [entry(row=2, col=2)])
