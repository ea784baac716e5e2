"""Records that geohsal wrote, when somebody else has damaged them."""

import os
import time
from pathlib import Path

import pytest

from geohsal.errors import DataError
from geohsal.io.atomic import OLD_S, read_record, write_text


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"round": 1}', "\x00"])
def test_a_damaged_record_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "query.json"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"query\.json: damaged") as caught:
        read_record(path, "request")
    assert "\n" not in str(caught.value)


def test_a_record_with_its_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "query.json"
    path.write_text('{"request": 1}', "utf-8")
    assert read_record(path, "request") == {"request": 1}
    with pytest.raises(DataError, match="cannot be read"):
        read_record(tmp_path, "request")


def test_what_killed_commands_left_of_a_file_goes_with_its_next_write(tmp_path: Path) -> None:
    old = [".a.01234567.part.txt", ".a.b.01234567.part.txt", ".a.89abcdef.part.tif", ".a.part.txt"]
    for name in (*old, ".a.76543210.part.txt"):
        (tmp_path / name).touch()
    for name in old:
        os.utime(tmp_path / name, (time.time() - OLD_S - 60,) * 2)
    write_text(tmp_path / "a.txt", "x")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.txt", ".a.76543210.part.txt", *old[1:]}
