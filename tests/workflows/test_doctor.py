"""The doctor finds what is broken and says what to do."""

from pathlib import Path

import pytest

from geohsal.workflows import doctor as room
from geohsal.workflows.doctor import check_disk, check_lines, check_position, check_writing, doctor


def test_this_machine_can_run_geohsal(tmp_path: Path) -> None:
    checks = doctor(tmp_path)
    assert [check.name for check in checks if check.level == "bad"] == []
    assert len({check.name for check in checks}) == len(checks)
    assert not list(tmp_path.iterdir())


def test_every_line_that_is_not_good_says_what_to_do(tmp_path: Path) -> None:
    for check in doctor(tmp_path):
        assert check.level == "good" or check.advice
    lines = check_lines(doctor(tmp_path))
    assert lines[0].startswith("good  python")


def test_variables_of_another_gdal_are_named() -> None:
    check = check_position({"PROJ_LIB": "/elsewhere", "HOME": "/home/me"})
    assert (check.level, check.advice) == ("note", "unset PROJ_LIB if maps move")


def test_wrong_coordinates_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KNOWN_POINT", ((500_000.0, 5_200_000.0), (9.0, 47.5)))
    check = check_position({"GDAL_DATA": "/elsewhere"})
    assert check.level == "bad"
    assert check.advice == "unset GDAL_DATA"


def test_a_folder_that_is_missing_or_full_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_writing(tmp_path / "nowhere")
    assert check.level == "bad"
    assert "No such file or directory" in check.found
    monkeypatch.setattr(room, "DISK_NOTE_GIB", 1e9)
    assert check_disk(tmp_path).level == "note"
    monkeypatch.setattr(room, "DISK_BAD_GIB", 1e9)
    assert check_disk(tmp_path).level == "bad"
