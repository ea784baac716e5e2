"""A part: what one chunk of a plan gave, as one file that is there whole or not at all.

Arrays are columns of one Arrow row, the manifest lies in the schema: one rename commits both. The
same content gives the same bytes, so a chunk that two processes do does no harm.
"""

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geohsal.io.atomic import replacing

SUFFIX = ".arrow"
FORMAT_VERSION = 1
_LEVEL = 1
"""Of zstd: float maps hardly get smaller with more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What a chunk gave: arrays by name, and plain values that say of what they are."""

    arrays: Mapping[str, NDArray[Any]]
    manifest: Mapping[str, Any]


def part_path(folder: Path, chunk_id: str) -> Path:
    """The file of a chunk's part."""
    return folder / f"{chunk_id}{SUFFIX}"


def write_part(path: Path, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    """Write a part whole or not at all; no time or host goes into it.

    Args:
        path: see `part_path`.
        arrays: numbers or truth values of any shape.
        manifest: plain values for JSON.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    note = {
        "format_version": FORMAT_VERSION,
        "manifest": dict(manifest),
        "arrays": {name: _passport(array) for name, array in plain.items()},
    }
    columns = [_column(array) for array in plain.values()]
    fields = [pa.field(name, column.type) for name, column in zip(plain, columns, strict=True)]
    schema = pa.schema(fields, metadata={"geohsal": json.dumps(note, sort_keys=True)})
    options = pa.ipc.IpcWriteOptions(
        compression=pa.Codec("zstd", compression_level=_LEVEL), use_threads=False
    )
    with (
        replacing(path) as beside,
        pa.OSFile(str(beside), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        writer.write_batch(pa.record_batch(columns, schema=schema))


def _passport(array: NDArray[Any]) -> list[Any]:
    """Type, shape and checksum: what a column does not say of its array."""
    return [array.dtype.str, list(array.shape), zlib.crc32(_bytes(array))]


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _column(array: NDArray[Any]) -> pa.Array:
    flat = array.reshape(-1)
    values = pa.array(flat.view(np.uint8) if flat.dtype == np.bool_ else flat)
    return pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), values)


def read_part(path: Path, names: Collection[str] | None = None) -> Part | None:
    """What `write_part` wrote; None where it is missing or damaged.

    Args:
        path: see `part_path`.
        names: arrays to read; those that the part lacks are left out. None: all.
    """
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            note, there = _note(reader), reader.schema.names
            wanted = [name for name in there if names is None or name in names]
            places = [there.index(name) for name in wanted]
            options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
            batch = pa.ipc.open_file(source, options=options).get_batch(0) if places else None
            arrays = {name: _array(batch, name, note["arrays"][name]) for name in wanted}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return Part(arrays=arrays, manifest=note["manifest"])


def _note(reader: Any) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(reader.schema.metadata[b"geohsal"])
    if note["format_version"] != FORMAT_VERSION or set(note["arrays"]) != set(reader.schema.names):
        raise ValueError("another version")
    return note


def _array(batch: Any, name: str, passport: list[Any]) -> NDArray[Any]:
    dtype, shape, checksum = passport
    flat = batch.column(name).flatten().to_numpy(zero_copy_only=False)
    array: NDArray[Any] = flat.view(np.dtype(dtype)).reshape(shape)
    if zlib.crc32(_bytes(array)) != checksum:
        raise ValueError("the checksum differs")
    return array


def is_whole(path: Path) -> bool:
    """Whether a part is there and not cut off; its content is checked when it is read."""
    try:
        with pa.memory_map(str(path)) as source:
            _note(pa.ipc.open_file(source))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return False
    return True
