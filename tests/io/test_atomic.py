"""Records that geohsal wrote, when somebody else has damaged them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geohsal.errors import DataError
from geohsal.io.atomic import (
    OLD_S,
    _host,
    _tag,
    discard,
    read_record,
    replacing,
    scratch,
    write_text,
)


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


@pytest.fixture
def dead() -> int:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_commands_left_in_a_folder_goes_with_the_next_write(
    tmp_path: Path, dead: int
) -> None:
    with replacing(tmp_path / "live.tif") as part:
        host, own, lot = part.name.split(".")[2].split("-")
        part.touch()
    gone = [
        f".a.{host}-{dead}-{lot}.part.gpkg",
        f".a.{host}-{dead}-{lot}.part.gpkg-journal",
        f".b.c.{host}-{dead}-{lot}.part.draft.tif",
        f".work.{host}-{dead}-{lot}.part/codes.bin",
        ".old.01234567.part.txt",
    ]
    stays = [
        f".a.{host}-{own}-{lot}.part.gpkg",
        f".a.00000000-{dead}-{lot}.part.gpkg",  # of another machine
        ".new.01234567.part.txt",
        ".a.part.txt",
        "a.part.txt",
    ]
    folder = tmp_path / "folder"
    for name in (*gone, *stays):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    os.utime(folder / ".old.01234567.part.txt", (time.time() - OLD_S - 60,) * 2)
    write_text(folder / "a.txt", "x")
    assert {path.name for path in folder.iterdir()} == {"a.txt", *stays}


def test_scratch_folders_go_whatever_happens(tmp_path: Path) -> None:
    def work() -> None:
        with scratch(tmp_path, "work") as folder:
            (folder / "x").touch()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert list(tmp_path.iterdir()) == []


def test_process_numbers_of_another_boot_or_container_are_others(tmp_path: Path) -> None:
    boot, namespace, other = (tmp_path / name for name in ("boot", "namespace", "other"))
    for path in (boot, namespace, other):
        path.write_text(path.name, "ascii")
    hosts = {
        _host("node", boot, namespace),
        _host("other", boot, namespace),
        _host("node", other, namespace),
        _host("node", boot, other),
        _host("node", tmp_path / "none", tmp_path / "none"),
    }
    assert len(hosts) == 5
    assert _host("node", boot, namespace) in hosts


def test_a_discarded_folder_is_gone_whoever_writes_into_it(tmp_path: Path) -> None:
    folder = tmp_path / ".parts"
    write_text(folder / "a.txt", "x")
    discard(folder)
    discard(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [True, False], ids=["a folder again", "nothing"])
def test_what_was_killed_while_it_discarded_goes_with_the_next_discard(
    tmp_path: Path, dead: int, there: bool
) -> None:
    folder = tmp_path / ".map.gpkg.parts"
    if there:
        folder.mkdir()
    host = _tag().split("-")[0]
    aside = tmp_path / f".map.gpkg.parts.{host}-{dead}-0a1b2c3d.part"
    (aside / "polygons").mkdir(parents=True)
    (aside / "plan.parquet").touch()
    discard(folder)
    assert list(tmp_path.iterdir()) == []
