"""First pass as a Triton kernel: group minima of half-precision products, for CUDA devices.

One program takes 128 pixels and 128 interleaved groups. It keeps the running minimum of each group
in registers while it walks through the members, so distances never reach memory. Operands are
scaled by a power of two and rounded to float16; sums are float32.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from geohsal.errors import KernelError
from geohsal.kernels.knn.search import Shortlist
from geohsal.kernels.knn.torch_path import Running, padded

ROWS = 128
"""Pixels of a program: with fewer, the bank is read from L2 faster than L2 can."""

GROUP = 16
"""Members of a group."""

WARPS = 8

_SPARE = 8  # groups beyond those asked for: half precision blurs their order
_MOST_MINIMA = 1 << 28  # float32 values at a time: 1 GiB
_HALF = 2.0**-11  # unit roundoff of float16
_TINY = 2.0**-25  # largest rounding of float16 values near zero
_LARGEST = 6e4  # float16 ends at 65504
_SUM = 2.0**-22  # unit roundoff of tensor-core sums, which may truncate


class Tiling(NamedTuple):
    """Shape of a program: lanes (groups) and stages of its pipeline."""

    lanes: int
    stages: int


TILINGS = (Tiling(128, 3), Tiling(128, 2), Tiling(64, 2), Tiling(64, 1))
"""From the fastest to the smallest."""


@triton.jit  # type: ignore[untyped-decorator]
def group_minima_kernel(  # type: ignore[no-untyped-def]
    points,
    bank,
    norm,
    minima,
    rows,
    groups,
    factor,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DIM: tl.constexpr,
) -> None:
    """Least norm - factor * dot of each group; points [rows, DIM], bank [groups GROUP, DIM]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)
    dim = tl.arange(0, DIM)
    first = tl.program_id(1).to(tl.int64) * LANES
    inside = row[:, None] < rows
    own = tl.load(points + row[:, None] * DIM + dim[None, :], mask=inside, other=0.0)
    best = tl.full((ROWS, LANES), float("inf"), tl.float32)
    for member in range(GROUP):
        other = first * GROUP + member * LANES + lane
        block = tl.load(bank + other[None, :] * DIM + dim[:, None])
        score = tl.load(norm + other)[None, :] - factor * tl.dot(own, block)
        best = tl.minimum(best, score)
    tl.store(minima + row[:, None] * groups + (first + lane)[None, :], best, mask=inside)


class TritonPass:
    """Scores |b|^2 - 2 z.b of a bank in float16, on a CUDA device."""

    def __init__(self, bank: Tensor) -> None:
        self._dim = max(16, triton.next_power_of_2(bank.shape[1]))
        self._lanes, self._stages = tiling(self._dim, shared_bytes=_shared_bytes(bank.device))
        rows, self._norm = padded(bank, multiple=GROUP * self._lanes)
        size = float(bank.square().mean().sqrt())
        self._scale = 2.0 ** -round(math.log2(size)) if size > 0 else 1.0
        self._bank = self._half(rows)
        self._groups = len(rows) // GROUP
        self.block_pixels = max(ROWS, _MOST_MINIMA // self._groups // ROWS * ROWS)

    def shortlist(self, points: Tensor, count: int) -> Shortlist:
        minima = torch.empty(len(points), self._groups, device=points.device)
        grid = (triton.cdiv(len(points), ROWS), self._groups // self._lanes)
        group_minima_kernel[grid](
            self._half(points),
            self._bank,
            self._norm,
            minima,
            len(points),
            self._groups,
            2 / self._scale**2,
            GROUP=GROUP,
            ROWS=ROWS,
            LANES=self._lanes,
            DIM=self._dim,
            num_warps=WARPS,
            num_stages=self._stages,
            enable_fp_fusion=True,  # the default is about to change
        )
        best = Running(count + _SPARE)
        best.add(minima, first_group=0)
        return best.shortlist(group=GROUP, lanes=self._lanes)

    def error(self, size: Tensor, reach: Tensor) -> Tensor:
        product = size * reach
        rounded = 2 * (2 * _HALF + _HALF**2) * product
        near_zero = 4 * math.sqrt(self._dim) * _TINY / self._scale * (size + reach)
        summed = (self._dim + 4) * _SUM * (reach.square() + 2 * product)
        outside = reach * self._scale > _LARGEST  # reach is never below size
        total: Tensor = rounded + near_zero + summed
        return total.masked_fill(outside, torch.inf)

    def _half(self, rows: Tensor) -> Tensor:
        scaled = (rows * self._scale).clamp(-_LARGEST, _LARGEST)
        return torch.nn.functional.pad(scaled, (0, self._dim - rows.shape[1])).half().contiguous()


def tiling(dim: int, *, shared_bytes: int) -> Tiling:
    """The first shape whose half-precision tiles fit into shared memory.

    Raises:
        KernelError: none does.
    """
    for shape in TILINGS:
        if 2 * dim * (ROWS + shape.stages * shape.lanes) <= shared_bytes:
            return shape
    raise KernelError(
        f"plar.rule=knn: {dim} components do not fit into the device's shared memory of "
        f"{shared_bytes} bytes; lower plar.dim"
    )


def _shared_bytes(device: torch.device) -> int:
    if device.type != "cuda":  # the interpreter
        return 1 << 18
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)
