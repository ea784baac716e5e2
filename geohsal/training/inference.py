"""One frozen pass over a scene: windows on a grid anchored at the scene's origin, logits blended.

The window belongs to the model. Each pixel is the weighted mean of the windows that cover it,
added in the same order whatever chunk is asked for, so chunk size and workers change nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor, nn

from geohsal.data.dataset import BandScale
from geohsal.models.error_mask import best_class, normalised_entropy, top2_margin
from geohsal.models.mc_dropout import mutual_information
from geohsal.models.segmenter import Segmenter
from geohsal.models.tsf import InferenceNetworks

GPU_GROUP = 8
"""Windows of a grid row that share a batch on a GPU; fixed, so that batches never change."""


class ImageSource(Protocol):
    """Anything that reads raw bands and validity of a window that may reach outside."""

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Bands (band, row, col) and validity (row, col)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowGrid:
    """Inference windows of side `size` that overlap by `overlap` pixels."""

    size: int
    overlap: int

    @property
    def stride(self) -> int:
        """Distance of two windows."""
        return self.size - self.overlap

    def touching(self, start: int, length: int) -> range:
        """Numbers of the windows along one axis that cover any of [start, start + length)."""
        first = max(0, -(-(start - self.size + 1) // self.stride))
        return range(first, (start + length - 1) // self.stride + 1)

    def weights(self) -> NDArray[np.float32]:
        """Blending weights (size, size): linear ramps over the overlap."""
        if self.overlap == 0:
            return np.ones((self.size, self.size), dtype=np.float32)
        position = np.arange(self.size, dtype=np.float64) + 0.5
        ramp = np.minimum(position, self.size - position) / self.overlap
        line = np.clip(ramp, None, 1.0)
        return np.outer(line, line).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOutput:
    """What the frozen networks say of a chunk; tensors on the networks' device.

    `probabilities` (class, row, col) of the teacher, `features` (channel, row, col),
    `error_logits` (row, col), `friend` class ids (row, col) or None, `valid` (row, col),
    `teacher` class ids and `confidence`, the largest probability (row, col), `information` by
    dropout (row, col), None unless asked for.
    """

    probabilities: Tensor
    features: Tensor
    error_logits: Tensor
    friend: Tensor | None
    valid: Tensor
    teacher: Tensor
    confidence: Tensor
    information: Tensor | None = None

    @property
    def entropy(self) -> Tensor:
        """Normalised entropy (row, col)."""
        return normalised_entropy(self.probabilities[None])[0]

    @property
    def margin(self) -> Tensor:
        """Lead of the best class over the runner-up (row, col)."""
        return top2_margin(self.probabilities[None])[0]

    @property
    def disagree(self) -> Tensor:
        """True where teacher and friend differ; all False without a friend."""
        if self.friend is None:
            return torch.zeros_like(self.valid)
        return self.teacher != self.friend


class _Held:
    """A region of a scene read in one go: windows overlap, but no block is decoded twice."""

    def __init__(self, source: ImageSource, region: Window) -> None:
        self._image, self._valid = source.read(region)
        self._top, self._left = int(region.row_off), int(region.col_off)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Bands (band, row, col) and validity (row, col) of a window inside the region."""
        row, col = int(window.row_off) - self._top, int(window.col_off) - self._left
        area = (slice(row, row + int(window.height)), slice(col, col + int(window.width)))
        return self._image[(slice(None), *area)], self._valid[area]


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Weighted sums of a chunk under construction."""

    logits: Tensor
    features: Tensor
    friend: Tensor | None
    error: Tensor
    information: Tensor | None
    weight: Tensor


class Predictor:
    """Frozen networks with their band scale and window."""

    def __init__(
        self,
        networks: InferenceNetworks,
        *,
        scale: BandScale,
        grid: WindowGrid,
        device: torch.device,
    ) -> None:
        self.networks = networks.to(device).eval()
        self.scale = scale
        self.grid = grid
        self.device = device
        self._weights = torch.from_numpy(grid.weights()).to(device)

    @torch.inference_mode()
    def predict(
        self, source: ImageSource, chunk: Window, *, dropout: Tensor | None = None
    ) -> ChunkOutput:
        """Blended outputs for a chunk of a scene (a window inside it).

        With `dropout`, the masks of `models.mc_dropout`, the mutual information as well.
        """
        row, col = int(chunk.row_off), int(chunk.col_off)
        height, width = int(chunk.height), int(chunk.width)
        sums: _Sums | None = None
        grid_rows = self.grid.touching(row, height)
        groups = list(self._groups(self.grid.touching(col, width)))
        source = _Held(source, self._around(grid_rows, range(groups[0][0], groups[-1][-1] + 1)))
        for grid_row in grid_rows:
            for grid_cols in groups:
                sums = self._add_group(
                    source, grid_row, grid_cols, (row, col, height, width), sums, dropout
                )
        assert sums is not None, "a chunk without windows"
        _, valid = source.read(chunk)
        total = sums.weight
        probabilities = _softmax(sums.logits / total)
        confidence, teacher = probabilities.max(dim=0)
        return ChunkOutput(
            probabilities=probabilities,
            teacher=teacher,
            confidence=confidence,
            features=sums.features / total,
            error_logits=sums.error / total,
            friend=None if sums.friend is None else best_class(sums.friend, dim=0),
            valid=torch.from_numpy(valid).to(self.device),
            information=None if sums.information is None else sums.information / total,
        )

    @property
    def head(self) -> nn.Conv2d:
        """The teacher's segmentation head."""
        teacher = self.networks.teacher
        assert isinstance(teacher, Segmenter), "the teacher is a segmenter"
        return teacher.decoder.head

    def _around(self, rows: range, columns: range) -> Window:
        """What the windows of some rows and columns of the grid cover together."""
        size, stride = self.grid.size, self.grid.stride
        height = (len(rows) - 1) * stride + size
        width = (len(columns) - 1) * stride + size
        return Window(columns.start * stride, rows.start * stride, width, height)

    def _groups(self, columns: range) -> Iterator[list[int]]:
        size = GPU_GROUP if self.device.type == "cuda" else 1
        for group in range(columns.start // size, (columns.stop - 1) // size + 1):
            yield list(range(group * size, (group + 1) * size))

    def _add_group(
        self,
        source: ImageSource,
        grid_row: int,
        grid_cols: list[int],
        place: tuple[int, int, int, int],
        sums: _Sums | None,
        dropout: Tensor | None,
    ) -> _Sums:
        size, stride = self.grid.size, self.grid.stride
        images = []
        for grid_col in grid_cols:
            image, valid = source.read(Window(grid_col * stride, grid_row * stride, size, size))
            images.append(torch.from_numpy(self.scale.apply(image, valid)))
        output = self.networks(torch.stack(images).to(self.device))
        if sums is None:
            sums = _empty_sums(output.logits, output.features, output.friend_logits, place)
            sums.information = None if dropout is None else torch.zeros_like(sums.error)
        information = None
        if dropout is not None:
            information = mutual_information(output.features, self.head, dropout)
        for item, grid_col in enumerate(grid_cols):
            cut = _overlap(grid_row * stride, grid_col * stride, size, place)
            if cut is None:
                continue
            inside, target = cut
            weight = self._weights[inside]
            sums.weight[target] += weight
            sums.logits[(slice(None), *target)] += (
                weight * output.logits[item][(slice(None), *inside)]
            )
            sums.features[(slice(None), *target)] += (
                weight * output.features[item][(slice(None), *inside)]
            )
            sums.error[target] += weight * output.error_logits[item][inside]
            if sums.information is not None and information is not None:
                sums.information[target] += weight * information[item][inside]
            if sums.friend is not None and output.friend_logits is not None:
                sums.friend[(slice(None), *target)] += (
                    weight * output.friend_logits[item][(slice(None), *inside)]
                )
        return sums


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over dim 0 by element-wise steps.

    torch's own takes another path for the last few pixels of a row, so that the last bit would
    depend on the chunk's width.
    """
    weights = (logits - logits.max(dim=0).values).exp()
    total = weights[0].clone()
    for other in weights[1:]:
        total += other
    return weights / total


def _empty_sums(
    logits: Tensor, features: Tensor, friend: Tensor | None, place: tuple[int, int, int, int]
) -> _Sums:
    shape = place[2:]
    return _Sums(
        logits=logits.new_zeros((logits.shape[1], *shape), dtype=torch.float32),
        features=features.new_zeros((features.shape[1], *shape), dtype=torch.float32),
        friend=None if friend is None else friend.new_zeros((friend.shape[1], *shape)),
        error=logits.new_zeros(shape, dtype=torch.float32),
        information=None,
        weight=logits.new_zeros(shape, dtype=torch.float32),
    )


def _overlap(
    top: int, left: int, size: int, place: tuple[int, int, int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Slices of a window and of the chunk where both lie; None where they do not meet."""
    row, col, height, width = place
    row0, row1 = max(top, row), min(top + size, row + height)
    col0, col1 = max(left, col), min(left + size, col + width)
    if row0 >= row1 or col0 >= col1:
        return None
    inside = (slice(row0 - top, row1 - top), slice(col0 - left, col1 - left))
    target = (slice(row0 - row, row1 - row), slice(col0 - col, col1 - col))
    return inside, target


def chunks(height: int, width: int, *, size: int) -> Iterator[Window]:
    """Windows of at most `size` pixels a side that partition a scene, row by row."""
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield Window(col, row, min(size, width - col), min(size, height - row))
