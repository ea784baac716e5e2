"""Writing a manifest: the same text again is nothing new, another one needs `overwrite`."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from geohsal.errors import RequestError
from geohsal.io.manifest import Manifest, dump_manifest


def manifest_text(manifest: Manifest, remarks: Sequence[str]) -> str:
    """YAML of a manifest below remarks, which people read and `load_manifest` skips."""
    return "".join(f"# {line}".rstrip() + "\n" for line in remarks) + dump_manifest(manifest)


def remarks_of(path: Path) -> list[str]:
    """The comment lines on top of a manifest."""
    lines = path.read_text("utf-8").splitlines()
    return [line[1:].removeprefix(" ") for line in takewhile(lambda line: line[:1] == "#", lines)]


def is_new(out: Path, text: str, *, overwrite: bool) -> bool:
    """Whether `out` does not hold this text yet.

    Raises:
        RequestError: it holds another one, or is a folder.
    """
    if out.is_dir():
        raise RequestError(f"{out}: is a folder; give a file with -o")
    if not out.exists():
        return True
    try:
        same = out.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        same = False
    if not same and not overwrite:
        raise RequestError(f"{out}: exists and is of another request; give --overwrite")
    return not same
