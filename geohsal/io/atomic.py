"""Write beside, then rename: a killed process leaves the old file or the new one, never half."""

import json
import os
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geohsal.errors import DataError, WriteError

PART = ".part"
"""Marks names that are not finished; anything with it may be deleted."""

OLD_S = 24 * 3600
"""An unfinished file that is older belongs to a command that was killed."""


def _host(name: str, boot: Path, pids: Path) -> str:
    """Where process numbers are those of this process: one boot of a machine, one container."""
    known = [name]
    with suppress(OSError):  # other systems than Linux
        known.append(boot.read_text("ascii").strip())
    with suppress(OSError):
        known.append(str(pids.stat().st_ino))
    return f"{zlib.crc32(' '.join(known).encode()):08x}"


_HOST = _host(
    socket.gethostname(), Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
)
_NAME = re.compile(rf"\..+(?P<mark>\.(?:([0-9a-f]{{8}})-(\d+)-)?[0-9a-f]{{8}}{re.escape(PART)}).*")
"""Unfinished names say who writes them: machine and process (older versions did not)."""

_DISK_WORDS = {
    "No space left on device": "No space left on device",
    "disk is full": "No space left on device",
}
"""What libraries say of a full disk, and the system's own words for it."""

_SAID = 200
"""Longest words of a library in a message."""

_cleared: set[Path] = set()


def unwritten(path: Path, error: BaseException | str) -> WriteError:
    """The error for a file that cannot be written, of which libraries have words of their own.

    Args:
        path: the file; an unfinished one is called by the name that it was to have.
        error: what the system or a library says.
    """
    match = _NAME.fullmatch(path.name)
    if match:
        path = path.with_name(path.name[1:].replace(match["mark"], "", 1))
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    known = next((words for sign, words in _DISK_WORDS.items() if sign in said), None)
    if known is None and getattr(error, "errno", None) is None:
        known = f"{said[:_SAID]}; is the disk full?"
    return WriteError(f"{path}: cannot be written ({known or said})")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` (same suffix) that takes its place if the block succeeds.

    What killed commands left unfinished in the folder goes first.

    Raises:
        WriteError: the folder cannot be written or the disk is full.
    """
    part = path.with_name(f".{path.stem}.{_tag()}{PART}{path.suffix}")
    clear_dead(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _sync(part)
        part.replace(path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        with suppress(OSError):  # cleaning up must not hide the error itself
            _remove(part)


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """A folder for unfinished work inside `folder`, removed afterwards; of killed commands, too.

    Raises:
        WriteError: it cannot be made.
    """
    own = folder / f".{name}.{_tag()}{PART}"
    clear_dead(folder)
    try:
        own.mkdir(parents=True)
    except OSError as error:
        raise unwritten(folder, error) from error
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder that others may still write into: it is gone at once, leftovers do no harm.

    What they write from then on fails or lands in a new folder of that name. What commands left
    that were killed while they removed theirs goes, too.
    """
    aside = folder.with_name(f".{folder.name.lstrip('.')}.{_tag()}{PART}")
    with suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    clear_dead(folder.parent)


def _tag() -> str:
    return f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def clear_dead(folder: Path) -> None:
    """Remove what killed commands left in a folder; looked for once, folders may hold thousands.

    Every write into the folder does so, too, and `discard` of a folder in it.
    """
    if folder in _cleared:
        return
    _cleared.add(folder)
    with suppress(OSError):  # whether the folder can be written shows when it is
        for found in folder.iterdir():
            match = _NAME.fullmatch(found.name)
            if match and _is_left(found, match[2], match[3]):
                _remove(found)


def _is_left(found: Path, host: str | None, pid: str | None) -> bool:
    """Whether nobody can still be at it: its process is gone, or it is older than a day."""
    if host == _HOST and pid is not None:
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
    return time.time() - found.lstat().st_mtime > OLD_S


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(part: Path) -> None:
    if part.is_dir():
        return
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON (sorted keys, two spaces) whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that geohsal wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); restore it from a copy") from None


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that geohsal wrote and that must hold these keys.

    Raises:
        DataError: the file is missing or damaged, is no object, or lacks a key.
    """
    values = read_json(path)
    missing = keys if not isinstance(values, dict) else [key for key in keys if key not in values]
    if missing or not isinstance(values, dict):
        lacks = f"no {', '.join(missing)} in it" if missing else "not an object"
        raise DataError(f"{path}: damaged ({lacks}); restore it from a copy")
    return values
