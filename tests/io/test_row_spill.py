"""Rows set aside on disk come back in any slices."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.errors import DataError
from geohsal.io.row_spill import RowSpill


@given(steps=st.lists(st.integers(1, 150), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_any_slice_of_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    plane = rng.integers(-5, 5, (sum(steps), 7)).astype(np.int32)
    folder = tmp_path_factory.mktemp("spill")
    spill = RowSpill(folder, width=7, dtype=np.int32)
    for top, step in zip(np.cumsum([0, *steps[:-1]]), steps, strict=True):
        spill.append(plane[top : top + step])
    for _ in range(5):
        first = int(rng.integers(0, len(plane)))
        last = int(rng.integers(first + 1, len(plane) + 60))
        np.testing.assert_array_equal(spill[first:last], plane[first:last])
    assert list(folder.iterdir()) == [], "the file has no name that a kill could leave"
    spill.close()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = RowSpill(tmp_path, width=3, dtype=np.uint8)

    class Full:
        def seek(self, *_: int) -> int:
            return 0

        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    spill.close()
    monkeypatch.setattr(spill, "_file", Full())
    with pytest.raises(DataError, match=r"cannot be written \(No space left"):
        spill.append(np.zeros((2, 3), dtype=np.uint8))
