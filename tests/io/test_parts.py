"""Parts: whole or not at all, the same bytes for the same content."""

from pathlib import Path

import numpy as np
import pytest

from geohsal.io.parts import is_whole, part_path, read_part, write_part

ARRAYS = {
    "floats": np.array([[0.5, np.nan], [-np.inf, 1e-7]], dtype=np.float32),
    "truths": np.array([[[True], [False]]]),
    "empty": np.zeros((3, 0), dtype=np.int64),
    "cube": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2],
    "number": np.array(7.25),
}


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = part_path(tmp_path / "parts", "abc")
    write_part(path, ARRAYS, {"scene": "north", "units": 3})
    part = read_part(path)
    assert part is not None
    assert dict(part.manifest) == {"scene": "north", "units": 3}
    assert list(part.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert part.arrays[name].dtype == array.dtype
        assert part.arrays[name].shape == array.shape
        assert part.arrays[name].tobytes() == array.tobytes()


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = part_path(tmp_path, "abc")
    write_part(path, ARRAYS, {})
    part = read_part(path, ["cube", "absent"])
    assert part is not None
    assert list(part.arrays) == ["cube"]
    nothing = read_part(path, [])
    assert nothing is not None
    assert not nothing.arrays


def test_a_rewritten_part_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_part(part_path(tmp_path, name), ARRAYS, {"b": 1, "a": [2]})
    assert part_path(tmp_path, "one").read_bytes() == part_path(tmp_path, "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.arrow", "two.arrow"]


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_torn_part_is_none(tmp_path: Path, kept: int) -> None:
    path = part_path(tmp_path, "abc")
    write_part(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:kept])
    assert not is_whole(path)
    assert read_part(path) is None
    assert read_part(path, []) is None


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = part_path(tmp_path, "abc")
    rng = np.random.default_rng(0)
    write_part(path, {"noise": rng.integers(0, 256, 10_000).astype(np.uint8)}, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert read_part(path) is None


def test_what_is_no_part_is_none(tmp_path: Path) -> None:
    assert read_part(tmp_path / "missing.arrow") is None
    (tmp_path / "text.arrow").write_text("not a part, but long enough to be one at first sight")
    assert read_part(tmp_path / "text.arrow") is None
    assert not is_whole(tmp_path)
