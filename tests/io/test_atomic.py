"""Records that geohsal wrote, when somebody else has damaged them."""

from pathlib import Path

import pytest

from geohsal.errors import DataError
from geohsal.io.atomic import read_record


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
