"""Packs PLAR operands for the fused kernel, launches it by chunks, scores near ties again.

Importing this module needs no triton; a launch does.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from geohsal.errors import KernelError
from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.operands import LARGEST_FEATURE, PlarOperands, PlarScores, Rule
from geohsal.kernels.plar.rounding import RoundedOperands, error_factor
from geohsal.kernels.plar.torch_path import chunked_scores, score_again_float32
from geohsal.kernels.precision import full_precision

MOST_FEATURES = 512
"""Features whose rows fit into shared memory together with a block of a whitening matrix."""

_OLDEST = (8, 0)  # bfloat16 products
_SCRATCH_BYTES = 48 << 20  # of distances per pixel and class; a larger call is cut into chunks
_RECHECK_PIXELS = 1 << 16
_CHECKED_PIXELS = 512
_BLOCKS = ((128, 128), (128, 64), (64, 64), (64, 32))
_RESERVED_BYTES = 8 << 10  # of shared memory, for reductions and barriers


class Layout(NamedTuple):
    """Sizes of a problem, how they are padded, and how a device's shared memory is used.

    `pixels` and `rows` (BQ and BN) are the pixels of a program and the rows of whitening matrices
    per step; `stages` of them are on their way at a time.
    """

    classes: int
    prototypes: int
    dim: int
    channels: int
    pixels: int
    rows: int
    stages: int

    @classmethod
    def choose(
        cls, *, classes: int, prototypes: int, dim: int, channels: int, shared_bytes: int
    ) -> Self:
        """The largest blocks of which two steps fit into shared memory beside the features."""
        features = max(16, _power(channels))
        for pixels, rows in _BLOCKS:
            if rows > 64 and dim <= 96:
                continue  # would be mostly padding
            free = shared_bytes - _RESERVED_BYTES - pixels * features * 2
            stages = free // (rows * features * 2)
            if stages >= 2:
                break
        return cls(classes, prototypes, dim, channels, pixels, rows, max(1, min(4, stages)))

    @classmethod
    def of(cls, operands: PlarOperands) -> Self:
        """Layout for the operands' device."""
        classes, prototypes, dim = operands.bias.shape
        return cls.choose(
            classes=classes,
            prototypes=prototypes,
            dim=dim,
            channels=operands.center.shape[0],
            shared_bytes=shared_bytes(operands.center.device),
        )

    @property
    def features(self) -> int:
        """FP: padded features."""
        return max(16, _power(self.channels))

    @property
    def padded_dim(self) -> int:
        """DP: rows per class; a power of two up to one step, then whole steps."""
        if self.dim <= self.rows:
            return max(16, _power(self.dim))
        return -(-self.dim // self.rows) * self.rows

    @property
    def padded_prototypes(self) -> int:
        """KP: places for prototypes."""
        return _power(self.prototypes)

    @property
    def class_block(self) -> int:
        """BC: classes per step of the Euclidean part."""
        return max(16, min(32, _power(self.classes), 64 // self.padded_prototypes))

    @property
    def slots(self) -> int:
        """Places for classes: one for the projection, whole steps of either part."""
        group = max(1, self.rows // self.padded_dim)
        return max(
            -(-(self.classes + 1) // group) * group,
            -(-self.classes // self.class_block) * self.class_block,
        )

    @property
    def constants(self) -> dict[str, int]:
        """Compile-time constants of the kernel."""
        return {
            "BQ": self.pixels,
            "BN": self.rows,
            "BF": min(64, self.features),
            "BC": self.class_block,
            "FP": self.features,
            "DP": self.padded_dim,
            "K": self.prototypes,
            "KP": self.padded_prototypes,
            "STAGES": self.stages,
            "FEATURE_STAGES": 1 if self.features <= 64 or self.stages < 3 else 2,
        }

    @property
    def options(self) -> dict[str, int | bool]:
        """Options of the compiler."""
        narrow = self.pixels == 64 and self.features < MOST_FEATURES
        return {"num_warps": 4 if narrow else 8, "enable_fp_fusion": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Operands in the kernel's layout."""

    weight: Tensor
    row: Tensor
    shift: Tensor
    high: Tensor
    low: Tensor
    flat: Tensor
    variance: Tensor
    table: Tensor

    def tensors(self) -> list[Tensor]:
        """In the order of the kernel's arguments."""
        return [
            self.weight,
            self.row,
            self.shift,
            self.high,
            self.low,
            self.flat,
            self.variance,
            self.table,
        ]


def pack(operands: PlarOperands, rounded: RoundedOperands) -> Packed:
    """Rounded operands padded with zeros; prototypes that do not exist are infinitely far."""
    layout = Layout.of(operands)
    features, dim, slots = layout.features, layout.padded_dim, layout.slots
    more_classes = slots - layout.classes
    more_kinds = layout.padded_prototypes - layout.prototypes
    wide, deep = features - layout.channels, dim - layout.dim
    lines = slots - layout.classes - 1
    weight = pad(rounded.matrices, (0, wide, 0, deep, 0, lines)).flatten(0, 1)
    bias = pad(rounded.bias, (0, deep, 0, 0, 0, lines))
    shifts = bias[:, 1:] - bias[:, :1]
    factor = pad(rounded.factor, (0, lines)).repeat_interleave(dim)[None]
    row = torch.cat([factor, bias[:, 0].reshape(1, -1), shifts.transpose(0, 1).flatten(1)])
    shift = pad(shifts.square().sum(2), (1, 0))
    covectors = (0, wide, 0, more_kinds, 0, more_classes)
    flat = torch.stack(
        [
            pad(rounded.linear_factor, (0, more_kinds, 0, more_classes)),
            pad(rounded.square, (0, more_kinds, 0, more_classes), value=torch.inf),
        ]
    )
    present = operands.present
    bits = (present, operands.gated, operands.support, operands.abstain)
    flags = sum(bit.float() * 2.0**number for number, bit in enumerate(bits))
    offset = (operands.logdet - 2 * operands.log_prior).masked_fill(~present, 0.0)
    table = torch.stack(
        [
            rounded.variance_offset,
            offset,
            operands.gate,
            operands.margin,
            torch.as_tensor(flags, device=offset.device),
            rounded.linear_norm.amax(1),
            rounded.square.amax(1),
        ]
    )
    packed = Packed(
        weight=weight,
        row=row,
        shift=pad(shift, (0, more_kinds), value=torch.inf),
        high=pad(rounded.linear_high, covectors),
        low=pad(rounded.linear_low, covectors),
        flat=flat,
        variance=pad(rounded.variance, (0, wide, 0, more_classes)),
        table=table,
    )
    return Packed(
        **{name: getattr(packed, name).contiguous() for name in Packed.__dataclass_fields__}
    )


def fused_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    packed: list[Tensor],
    *,
    scale: float,
    settings: Settings,
) -> PlarScores:
    """Scores of features [N, F] by the fused kernel; near ties are scored again in float32.

    The first call of a layout on a device is checked against the torch path.

    Args:
        features: raw features of any float type and strides.
        pseudo: [N] class ids of the teacher.
        operands: the definition.
        packed: tensors of `pack`.
        scale: of the rounded operands.
        settings: rule and tie.

    Raises:
        KernelError: the kernel gave other decisions than the torch path.
    """
    scores = raw_scores(features, pseudo, operands, packed, scale=scale, settings=settings)
    with full_precision(features.device.type):
        score_again_float32(
            scores,
            features,
            pseudo,
            operands,
            settings=settings,
            chunk_pixels=_RECHECK_PIXELS,
        )
    _check_once(scores, features, pseudo, operands, settings)
    return scores


def raw_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    packed: list[Tensor],
    *,
    scale: float,
    settings: Settings,
) -> PlarScores:
    """What the kernel alone says; decisions hold outside near ties."""
    layout = Layout.of(operands)
    scores = _empty_scores(len(features), features.device)
    step = _SCRATCH_BYTES // (12 * layout.slots) // 128 * 128
    stride = min(step, -(-len(features) // 128) * 128)
    scratch = torch.empty(3 * layout.slots * stride, dtype=torch.float32, device=features.device)
    known = int(operands.present.sum())
    for start in range(0, len(features), step):
        part = slice(start, start + step)
        _launch(
            features[part],
            pseudo[part],
            operands,
            packed,
            scratch,
            PlarScores(*(column[part] for column in scores)),
            layout=layout,
            stride=stride,
            known=known,
            scale=scale,
            settings=settings,
        )
    return scores


def _launch(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    packed: list[Tensor],
    scratch: Tensor,
    scores: PlarScores,
    *,
    layout: Layout,
    stride: int,
    known: int,
    scale: float,
    settings: Settings,
) -> None:
    from geohsal.kernels.plar.triton_kernel import plar_kernel

    outputs = scores._replace(near_tie=scores.near_tie.view(torch.uint8))
    plar_kernel[(-(-len(features) // layout.pixels),)](
        features,
        pseudo,
        operands.center,
        *packed,
        scratch,
        *outputs,
        features.stride(0),
        features.stride(1),
        len(features),
        layout.channels,
        layout.classes,
        known,
        layout.slots,
        stride,
        scale,
        LARGEST_FEATURE * scale / operands.scale,
        settings.tie,
        error_factor(layout.dim),
        ROBUST=settings.rule is Rule.ROBUST,
        AGREEMENT=settings.agreement,
        **layout.constants,
        **layout.options,
    )


def _empty_scores(pixels: int, device: torch.device) -> PlarScores:
    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return PlarScores(
        euclid_class=empty(pixels, 2, dtype=torch.uint8),
        euclid=empty(pixels, 2, dtype=torch.float32),
        q_class=empty(pixels, 2, dtype=torch.uint8),
        q=empty(pixels, 2, dtype=torch.float32),
        chosen=empty(pixels, dtype=torch.uint8),
        mahalanobis=empty(pixels, dtype=torch.float32),
        code=empty(pixels, dtype=torch.uint8),
        near_tie=empty(pixels, dtype=torch.bool),
    )


_checked: set[tuple[torch.device, Layout, torch.dtype, Settings]] = set()


def _check_once(
    scores: PlarScores,
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> None:
    """Compare the first pixels of the first call with the torch path: compilers differ."""
    key = (features.device, Layout.of(operands), features.dtype, settings)
    if key in _checked or not len(features):
        return
    some = slice(0, _CHECKED_PIXELS)
    wanted = chunked_scores(
        features[some], pseudo[some], operands, settings=settings, chunk_pixels=_CHECKED_PIXELS
    )
    same = (scores.code[some] == wanted.code) & (scores.chosen[some] == wanted.chosen)
    wrong = int((~same).sum())
    if wrong:
        raise KernelError(
            f"plar.kernel triton: {wrong} of {len(same)} decisions differ from the torch path on "
            f"{features.device}; use plar.kernel=torch-half and report triton's version"
        )
    _checked.add(key)


def why_unavailable(device: torch.device) -> str | None:
    """Why the fused kernel cannot run on a CUDA device; None where it can."""
    if find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if torch.version.hip is not None:
        return "it is built for CUDA, not for ROCm"
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return "it needs a GPU of compute capability 8.0 (Ampere) or newer"
    return None


@cache
def shared_bytes(device: torch.device) -> int:
    """Shared memory that one program may use; the interpreter, on the CPU, has no such limit."""
    if device.type != "cuda":
        return 227 << 10
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def _power(value: int) -> int:
    """Least power of two that is not below the value."""
    return 1 << (value - 1).bit_length()
