"""The torch custom op `geohsal::plar_scores`, its dispatch and its public wrapper.

Every kernel gives the decisions of `reference_scores`; scores carry the kernel's precision.
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from geohsal.errors import KernelError
from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.operands import PlarOperands, PlarScores, Rule
from geohsal.kernels.plar.reference import DEFAULT_TIE
from geohsal.kernels.plar.rounding import RoundedOperands, round_operands
from geohsal.kernels.plar.torch_path import chunked_scores
from geohsal.kernels.plar.triton_path import MOST_FEATURES, fused_scores, pack, why_unavailable

LEAST_HALF_DIM = 128
"""Components from which bfloat16 is faster on a CPU (tests/benchmarks/bench_plar_cpu.py)."""

CPU_HALVES = bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether this processor multiplies bfloat16 (AVX512-BF16, AMX, ARM BF16); without it is slower."""

GPU_HALVES = torch.version.hip is None and hasattr(torch.ops.aten.mm, "dtype")
"""Whether products of halves may come back in float32 on a GPU."""


class Kernel(StrEnum):
    """What computes the scores; every choice gives the same decisions."""

    AUTO = "auto"
    TORCH = "torch"
    TORCH_HALF = "torch-half"
    TRITON = "triton"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """The kernel that will run on the operands' device, with its own form of the operands."""

    kernel: Kernel
    tensors: list[Tensor]
    scale: float


_Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("geohsal::plar_scores", mutates_args=())
def plar_scores_op(
    features: Tensor,
    pseudo: Tensor,
    center: Tensor,
    projection: Tensor,
    means: Tensor,
    prototypes: Tensor,
    whitening: Tensor,
    bias: Tensor,
    logdet: Tensor,
    log_prior: Tensor,
    gate: Tensor,
    gated: Tensor,
    margin: Tensor,
    support: Tensor,
    abstain: Tensor,
    prepared: list[Tensor],
    scale: float,
    prepared_scale: float,
    rule: int,
    agreement: bool,
    tie: float,
    chunk_pixels: int,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Shapes are those of `PlarOperands`; the outputs are the fields of `PlarScores`.

    `prepared` are the tensors of `Prepared`: none, those of `RoundedOperands`, or of `Packed`.
    """
    operands = PlarOperands(
        center=center,
        projection=projection,
        means=means,
        prototypes=prototypes,
        whitening=whitening,
        bias=bias,
        logdet=logdet,
        log_prior=log_prior,
        gate=gate,
        gated=gated,
        margin=margin,
        support=support,
        abstain=abstain,
        scale=scale,
    )
    settings = Settings(Rule(rule), agreement, tie)
    if kernel == Kernel.TRITON:
        return fused_scores(
            features, pseudo, operands, prepared, scale=prepared_scale, settings=settings
        )
    rounded = RoundedOperands.of(prepared, scale=prepared_scale) if prepared else None
    return chunked_scores(
        features, pseudo, operands, settings=settings, chunk_pixels=chunk_pixels, rounded=rounded
    )


@plar_scores_op.register_fake
def _(features: Tensor, *operands: object) -> _Outputs:
    pixels = features.shape[0]
    code = features.new_empty(pixels, dtype=torch.uint8)
    pair = features.new_empty(pixels, 2, dtype=torch.float32)
    classes = features.new_empty(pixels, 2, dtype=torch.uint8)
    single = features.new_empty(pixels, dtype=torch.float32)
    near = features.new_empty(pixels, dtype=torch.bool)
    return (
        classes,
        pair,
        torch.empty_like(classes),
        torch.empty_like(pair),
        code,
        single,
        torch.empty_like(code),
        near,
    )


def plar_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    rule: Rule = Rule.ROBUST,
    agreement: bool = False,
    tie: float = DEFAULT_TIE,
    chunk_pixels: int = 4096,
    kernel: Kernel = Kernel.AUTO,
    prepared: Prepared | None = None,
) -> PlarScores:
    """Scores and decision codes of raw features [N, F] with pseudo-labels [N].

    Args:
        features: any float type, on the operands' device; non-finite rows come back INVALID.
        pseudo: integer class ids of the teacher.
        operands: constants made by `fold_operands`.
        rule: which ranking chooses the class, and what accepts it.
        agreement: robust rule only: the class must be among the two nearest by Euclid.
        tie: relative width of the band in which comparisons are repeated in float64.
        chunk_pixels: pixels that the torch kernels score at a time.
        kernel: what computes; `torch` alone returns scores in float32 precision.
        prepared: what `prepare` made of these operands, in place of `kernel`.

    Raises:
        KernelError: the kernel cannot run on this device.
    """
    if prepared is None:
        prepared = prepare(operands, kernel)
    outputs = plar_scores_op(
        features,
        pseudo,
        *operands.tensors().values(),
        prepared.tensors,
        operands.scale,
        prepared.scale,
        int(rule),
        agreement,
        tie,
        chunk_pixels,
        prepared.kernel.value,
    )
    return PlarScores(*outputs)


def prepare(operands: PlarOperands, kernel: Kernel = Kernel.AUTO) -> Prepared:
    """Choose the kernel for the operands' device and bring the operands into its form.

    Raises:
        KernelError: the kernel cannot run there.
    """
    _, dim, channels = operands.whitening.shape
    chosen = resolve_kernel(kernel, operands.center.device, dim=dim, channels=channels)
    if chosen is Kernel.TORCH:
        return Prepared(kernel=chosen, tensors=[], scale=1.0)
    on_gpu = operands.center.device.type == "cuda"
    rounded = round_operands(operands, torch.float16 if on_gpu else torch.bfloat16)
    tensors = rounded.tensors()
    if chosen is Kernel.TRITON:
        tensors = pack(operands, rounded).tensors()
    return Prepared(kernel=chosen, tensors=tensors, scale=rounded.scale)


def resolve_kernel(
    kernel: Kernel, device: torch.device, *, dim: int = 1, channels: int = 1
) -> Kernel:
    """The kernel that will run: `auto` takes the fastest for device and shape.

    Raises:
        KernelError: a kernel was asked for that cannot run on the device.
    """
    if kernel is Kernel.TORCH:
        return kernel
    on_gpu = device.type == "cuda"
    halves = GPU_HALVES if on_gpu else CPU_HALVES
    reason: str | None = "it needs a CUDA device, and this is the CPU"
    if on_gpu:
        reason = _why_not_triton(device, channels)
    if kernel is Kernel.AUTO:
        if on_gpu and reason is None:
            return Kernel.TRITON
        if on_gpu:
            return Kernel.TORCH_HALF if halves else Kernel.TORCH
        return Kernel.TORCH_HALF if halves and dim >= LEAST_HALF_DIM else Kernel.TORCH
    if kernel is Kernel.TRITON and reason is not None:
        raise KernelError(f"plar.kernel triton: {reason}; use plar.kernel=auto")
    if kernel is Kernel.TORCH_HALF and not halves:
        lack = "this torch returns no float32 from products of halves (CUDA, 2.8 or newer)"
        if not on_gpu:
            lack = "this processor has no bfloat16 instructions"
        raise KernelError(f"plar.kernel torch-half: {lack}; use plar.kernel=auto")
    return kernel


def _why_not_triton(device: torch.device, channels: int) -> str | None:
    """Why the fused kernel cannot run on a CUDA device; None where it can."""
    if channels > MOST_FEATURES:
        return f"it takes at most {MOST_FEATURES} features, not {channels}"
    return why_unavailable(device)
