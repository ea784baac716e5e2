"""decisions.csv as pages write it and spreadsheets save it."""

from pathlib import Path

import pytest

from geohsal.errors import ReviewError
from geohsal.io.decisions_csv import (
    COLUMNS,
    Decision,
    DecisionsOrigin,
    read_decisions,
    read_decisions_origin,
)

HEAD = ",".join(COLUMNS)
ROWS = (
    "a_1,done,,,,Ann,1790000000000,3,abc,1",
    'a_2,done,2,water,"a ""quoted"", note",Ann,1790000000001,3,abc,1',
    "a_3,unsure,,,'=1+1,,,3,abc,1",
)


def written(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_become_decisions(tmp_path: Path) -> None:
    path = written(tmp_path / "decisions.csv", "\r\n".join([HEAD, *ROWS]) + "\r\n")
    first, second, third = read_decisions(path)
    assert first == Decision(
        region_id="a_1",
        status="done",
        assigned_class=None,
        notes="",
        reviewed_by="Ann",
        reviewed_ms=1_790_000_000_000,
    )
    assert (second.assigned_class, second.notes) == (2, 'a "quoted", note')
    assert (third.status, third.notes, third.reviewed_ms) == ("unsure", "=1+1", None)
    assert read_decisions_origin(path) == DecisionsOrigin(round=3, request="abc")


def test_what_a_spreadsheet_saves_is_read_too(tmp_path: Path) -> None:
    lines = [
        f"mine;{HEAD.replace(',', ';')}",
        ";a_1;DONE;2.0;;hm;Ann;1.79E+12;3.0;abc;1.0",
        ";" * 10,
    ]
    path = written(tmp_path / "d.csv", "\n".join(lines), encoding="utf-8-sig")
    [decision] = read_decisions(path)
    assert (decision.status, decision.assigned_class, decision.notes) == ("done", 2, "hm")
    assert read_decisions_origin(path).round == 3


def test_a_note_may_hold_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", f'{HEAD}\r\na_1,done,,,"one\r\ntwo",,,3,abc,1\r\n')
    assert read_decisions(path)[0].notes == "one\ntwo"


def test_rows_without_a_status_say_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", f"{HEAD}\na_1,,,,,,,3,abc,1\n")
    assert read_decisions(path) == []


def test_a_class_without_a_status_is_not_lost(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", f"{HEAD}\na_1,,2,,,,,3,abc,1\n")
    [decision] = read_decisions(path)
    assert (decision.status, decision.assigned_class) == ("todo", 2)


def test_a_separator_line_shouted_names_and_repeated_rows_are_read(tmp_path: Path) -> None:
    head, row = HEAD.upper().replace(",", ";"), ROWS[0].replace(",", ";")
    path = written(tmp_path / "d.csv", "\r\n".join(["sep=;", head, row, row]))
    [decision] = read_decisions(path)
    assert (decision.region_id, decision.status) == ("a_1", "done")
    other = row.replace("done", "unsure")
    path = written(tmp_path / "d.csv", "\r\n".join(["sep=;", head, row, other]))
    with pytest.raises(ReviewError, match="row 4: region a_1 is already decided in row 3"):
        read_decisions(path)


def test_wrong_rows_are_numbered(tmp_path: Path) -> None:
    rows = (
        "a_1,maybe,,,,,,3,abc,1",
        ",done,,,,,,3,abc,1",
        "a_2,done,water,,,,,3,abc,1",
        "a_3,done,1.5,,,,,3,abc,1",
        "a_4,done,,,,,,3,abc,1",
        "a_4,skipped,,,,,,3,abc,1",
    )
    with pytest.raises(ReviewError) as caught:
        read_decisions(written(tmp_path / "d.csv", "\n".join([HEAD, *rows])))
    for part in (
        "row 2: status 'maybe' is none of todo, done, unsure, skipped",
        "row 3: has no region_id",
        "row 4: assigned_class 'water' is not a whole number from 0",
        "row 5: assigned_class '1.5' is not a whole number from 0",
        "row 7: region a_4 is already decided in row 6",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    text = "\n".join([HEAD, *["a,maybe,,,,,,3,abc,1"] * 14])
    with pytest.raises(ReviewError, match=r"row 11: .*; and 4 more$"):
        read_decisions(written(tmp_path / "d.csv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region,class\n1,2\n", "not a decisions file .no column region_id, status"),
        ("", "not a decisions file"),
        (f'{HEAD}\n"a_1,done', "not a CSV file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ReviewError, match=message):
        read_decisions(written(tmp_path / "d.csv", text))


def test_bytes_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(f"{HEAD}\nM\xfcller".encode("latin-1"))
    with pytest.raises(ReviewError, match="is not UTF-8; save it as CSV UTF-8"):
        read_decisions(path)
    with pytest.raises(ReviewError, match=r"none\.csv: cannot be read"):
        read_decisions(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("a,done,,,,,,3,abc,1", "b,done,,,,,,4,abc,1"),
            "rows 2, 3 are of several queries; give what one page saved",
        ),
        ((), "holds no decision"),
        (("a,done,,,,,,3,,1",), "row 2: does not say of which query it is"),
        (("a,done,,,,,,x,abc,1",), "row 2: round 'x' is not a whole number"),
        (("a,done,,,,,,3,abc,2",), "row 2: has format_version 2, this geohsal reads 1"),
    ],
)
def test_the_query_must_be_clear(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(ReviewError, match=message):
        read_decisions_origin(written(tmp_path / "d.csv", "\n".join([HEAD, *rows])))
