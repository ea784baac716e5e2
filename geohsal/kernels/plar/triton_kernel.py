"""The fused PLAR kernel: one program scores a block of pixels from features to decision codes.

Phase 1 reads the features by slices, once per block of classes: centre, scale, split in two
halves; three products with the covectors of the Euclidean prototypes, one of the squared features
with the error variances. Phase 2 holds the whole rows as halves and runs over the whitening
matrices: product, bias, squared norm, minimum over prototypes. Phase 3 walks over the classes of
each pixel: the running two best under each ranking, gates, margin, code, near tie. Between the
phases three numbers per pixel and class go through a scratch buffer; whitened differences never
leave the registers.

Arithmetic and names follow `rounding` and `decision`. Importing this module needs triton, not a
GPU; TRITON_INTERPRET=1 must be set before the import for the interpreter to run it.
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""The interpreter multiplies the bits of bfloat16, so there they are widened first."""

_INVALID = tl.constexpr(0)
_CONFIRMED = tl.constexpr(1)
_CORRECTED = tl.constexpr(2)
_AMBIGUOUS = tl.constexpr(3)
_NOVEL = tl.constexpr(4)
_NO_CLASS = tl.constexpr(255)
_FLAT_ERROR = tl.constexpr(2e-6)


@triton.jit
def _load_features(x_ptr, x_row, x_col, center_ptr, rows, columns, pixels, channels, scale, limit):
    """Centred, scaled features of rows x columns, and which of them are in range."""
    inside = (rows < pixels)[:, None] & (columns < channels)[None, :]
    at = rows.to(tl.int64)[:, None] * x_row + columns.to(tl.int64)[None, :] * x_col
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    center = tl.load(center_ptr + columns, mask=columns < channels, other=0.0)
    x = tl.where(inside, (x - center[None, :]) * scale, 0.0)
    fits = tl.abs(x) <= limit  # false for NaN
    return tl.where(fits, x, 0.0), fits


@triton.jit
def _dot_bf16(a, b, acc):
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    return tl.dot(a, b, acc)


@triton.jit
def _insert2(value, first, second):
    """The two least of three, ascending."""
    return tl.minimum(first, value), tl.minimum(second, tl.maximum(first, value))


@triton.jit
def _rank2(value, number, first, first_class, second, second_class):
    """Running two best with classes; of equal values the earlier class stays ahead."""
    wins = value < first
    places = value < second
    new_second = tl.where(wins, first, tl.where(places, value, second))
    new_second_class = tl.where(wins, first_class, tl.where(places, number, second_class))
    return (
        tl.where(wins, value, first),
        tl.where(wins, number, first_class),
        new_second,
        new_second_class,
    )


@triton.jit
def _euclid_phase(
    x_ptr,
    center_ptr,
    high_ptr,
    low_ptr,
    flat_ptr,
    variance_ptr,
    e_ptr,
    t_ptr,
    rows,
    inside,
    x_row,
    x_col,
    pixels,
    channels,
    classes,
    slots,
    stride,
    scale,
    limit,
    BQ: tl.constexpr,
    BF: tl.constexpr,
    BC: tl.constexpr,
    FP: tl.constexpr,
    KP: tl.constexpr,
    FEATURE_STAGES: tl.constexpr,
):
    """Euclidean distances less |P x|^2 and error variances; validity and squared length of rows."""
    length2 = tl.zeros([BQ], dtype=tl.float32)
    valid = inside
    for block in tl.range(0, tl.cdiv(classes, BC), num_stages=1):
        covectors = block * BC * KP + tl.arange(0, BC * KP)
        own = block * BC + tl.arange(0, BC)
        cross = tl.zeros([BQ, BC * KP], dtype=tl.float32)
        spread = tl.zeros([BQ, BC], dtype=tl.float32)
        for start in tl.range(0, FP, BF, num_stages=FEATURE_STAGES):
            columns = start + tl.arange(0, BF)
            x, fits = _load_features(
                x_ptr, x_row, x_col, center_ptr, rows, columns, pixels, channels, scale, limit
            )
            high = x.to(tl.float16)
            low = (x - high.to(tl.float32)).to(tl.float16)
            at = covectors[None, :] * FP + columns[:, None]
            g_high = tl.load(high_ptr + at)
            g_low = tl.load(low_ptr + at)
            cross = tl.dot(high, g_high, cross)
            cross = tl.dot(low, g_high, cross)
            cross = tl.dot(high, g_low, cross)
            square = x * x
            variance = tl.load(variance_ptr + own[None, :] * FP + columns[:, None])
            spread = _dot_bf16(square.to(tl.bfloat16), variance, spread)
            if block == 0:
                length2 += tl.sum(square, 1)
                valid = valid & (tl.min(fits.to(tl.int32), 1) > 0)
        factor = tl.load(flat_ptr + covectors)
        base = tl.load(flat_ptr + slots * KP + covectors)
        flat = base[None, :] - 2.0 * cross * factor[None, :]
        if KP > 1:
            flat = tl.min(tl.reshape(flat, [BQ, BC, KP]), 2)
        place = own[None, :] * stride + rows[:, None]
        kept = inside[:, None] & (own < classes)[None, :]
        tl.store(e_ptr + place, flat, mask=kept)
        tl.store(t_ptr + place, spread, mask=kept)
    return valid, length2


@triton.jit
def _mahalanobis_phase(
    x_ptr,
    center_ptr,
    weight_ptr,
    row_ptr,
    shift_ptr,
    m_ptr,
    rows,
    inside,
    x_row,
    x_col,
    pixels,
    channels,
    classes,
    slots,
    stride,
    scale,
    limit,
    BQ: tl.constexpr,
    BN: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Squared norms of whitened differences; slot 0 holds |P x|^2."""
    columns = tl.arange(0, FP)
    x, _fits = _load_features(
        x_ptr, x_row, x_col, center_ptr, rows, columns, pixels, channels, scale, limit
    )
    points = x.to(tl.float16)
    if DP >= BN:
        PER_CLASS: tl.constexpr = DP // BN
        total = tl.zeros([BQ], dtype=tl.float32)
        shifted = tl.zeros([BQ, KP], dtype=tl.float32)
        kinds = tl.arange(0, KP)
        for block in tl.range(0, (classes + 1) * PER_CLASS, num_stages=STAGES):
            lines = block * BN + tl.arange(0, BN)
            weight = tl.load(weight_ptr + lines[None, :] * FP + columns[:, None])
            gap = tl.dot(points, weight)
            gap = gap * tl.load(row_ptr + lines)[None, :]
            gap = gap - tl.load(row_ptr + slots * DP + lines)[None, :]
            total += tl.sum(gap * gap, 1)
            for other in tl.static_range(1, K):
                shift = tl.load(row_ptr + (1 + other) * slots * DP + lines)
                along = tl.sum(gap * shift[None, :], 1)
                shifted += tl.where(kinds[None, :] == other, along[:, None], 0.0)
            slot = block // PER_CLASS
            last = block % PER_CLASS == PER_CLASS - 1
            nearest = total
            if KP > 1:
                extra = tl.load(shift_ptr + slot * KP + kinds)
                nearest = total + tl.min(extra[None, :] - 2.0 * shifted, 1)
                shifted = tl.where(last, 0.0, shifted)
            tl.store(m_ptr + slot * stride + rows, nearest, mask=inside & last)
            total = tl.where(last, 0.0, total)
    else:
        GROUP: tl.constexpr = BN // DP
        for block in tl.range(0, tl.cdiv(classes + 1, GROUP), num_stages=STAGES):
            lines = block * BN + tl.arange(0, BN)
            members = block * GROUP + tl.arange(0, GROUP)
            weight = tl.load(weight_ptr + lines[None, :] * FP + columns[:, None])
            gap = tl.dot(points, weight)
            gap = gap * tl.load(row_ptr + lines)[None, :]
            gap = gap - tl.load(row_ptr + slots * DP + lines)[None, :]
            total = tl.sum(tl.reshape(gap * gap, [BQ, GROUP, DP]), 2)
            nearest = total
            for other in tl.static_range(1, K):
                shift = tl.load(row_ptr + (1 + other) * slots * DP + lines)
                along = tl.sum(tl.reshape(gap * shift[None, :], [BQ, GROUP, DP]), 2)
                extra = tl.load(shift_ptr + members * KP + other)
                nearest = tl.minimum(nearest, total + extra[None, :] - 2.0 * along)
            place = members[None, :] * stride + rows[:, None]
            tl.store(m_ptr + place, nearest, mask=inside[:, None] & (members <= classes)[None, :])


@triton.jit
def _store_pair(
    score_ptr, class_ptr, rows, inside, valid, first, first_class, second, second_class
):
    """Two best scores and classes [N, 2]; infinite and no class where there is none."""
    inf = float("inf")
    first = tl.where(valid, first, inf)
    second = tl.where(valid, second, inf)
    first_class = tl.where(first < inf, first_class, _NO_CLASS)
    second_class = tl.where(second < inf, second_class, _NO_CLASS)
    tl.store(score_ptr + 2 * rows, first, mask=inside)
    tl.store(score_ptr + 2 * rows + 1, second, mask=inside)
    tl.store(class_ptr + 2 * rows, first_class.to(tl.uint8), mask=inside)
    tl.store(class_ptr + 2 * rows + 1, second_class.to(tl.uint8), mask=inside)


@triton.jit
def _decision_phase(
    pseudo_ptr,
    class_ptr,
    m_ptr,
    e_ptr,
    t_ptr,
    euclid_class_ptr,
    euclid_ptr,
    q_class_ptr,
    q_ptr,
    chosen_ptr,
    mahalanobis_ptr,
    code_ptr,
    near_ptr,
    rows,
    inside,
    valid,
    length2,
    classes,
    known,
    stride,
    tie,
    error_factor,
    BQ: tl.constexpr,
    ROBUST: tl.constexpr,
    AGREEMENT: tl.constexpr,
):
    """Running two best under each ranking, gates, margin, code, near tie."""
    inf = float("inf")
    own_flat = tl.load(m_ptr + rows, mask=inside, other=0.0)
    length = tl.sqrt(length2)
    q1 = tl.full([BQ], inf, tl.float32)
    q2, e1, e2, m1 = q1, q1, q1, q1
    ql1, ql2, qu1, qu2 = q1, q1, q1, q1
    el1, el2, el3, eu1, eu2 = q1, q1, q1, q1, q1
    ml1, ml2, mu1 = q1, q1, q1
    qc1 = tl.zeros([BQ], dtype=tl.int32)
    qc2, ec1, ec2, mc1 = qc1, qc1, qc1, qc1
    m_chosen = q1
    gate_near = qc1
    any_inside, any_certain, any_maybe = qc1, qc1, qc1
    for number in range(classes):
        variance_offset = tl.load(class_ptr + number)
        offset = tl.load(class_ptr + classes + number)
        gate = tl.load(class_ptr + 2 * classes + number)
        flags = tl.load(class_ptr + 4 * classes + number).to(tl.int32)
        covector = tl.load(class_ptr + 5 * classes + number)
        lengths = tl.load(class_ptr + 6 * classes + number)
        present = (flags & 1) > 0
        gated = (flags & 3) == 3
        m = tl.load(m_ptr + (number + 1) * stride + rows, mask=inside, other=0.0)
        m = tl.maximum(m, 0.0)
        t = tl.load(t_ptr + number * stride + rows, mask=inside, other=0.0) + variance_offset
        e = tl.load(e_ptr + number * stride + rows, mask=inside, other=0.0)
        e = tl.maximum(e + own_flat, 0.0)
        m_radius = tie * (1.0 + m) + error_factor * tl.sqrt(m * t) + 4.0 * t
        e_radius = tie * (1.0 + e) + _FLAT_ERROR * (lengths + own_flat + length * covector)
        q = tl.where(present, m + offset, inf)
        q_radius = m_radius + tie * tl.abs(offset)
        ql = tl.where(present, q - q_radius, inf)
        qu = tl.where(present, q + q_radius, inf)
        chosen_now = q < q1
        q1, qc1, q2, qc2 = _rank2(q, number, q1, qc1, q2, qc2)
        qu1, qu2 = _insert2(qu, qu1, qu2)
        ql1, ql2 = _insert2(ql, ql1, ql2)
        e = tl.where(present, e, inf)
        el = tl.where(present, e - e_radius, inf)
        eu = tl.where(present, e + e_radius, inf)
        if not ROBUST:
            chosen_now = e < e1
        e1, ec1, e2, ec2 = _rank2(e, number, e1, ec1, e2, ec2)
        el3 = tl.minimum(el3, tl.maximum(el2, el))
        el1, el2 = _insert2(el, el1, el2)
        eu1, eu2 = _insert2(eu, eu1, eu2)
        gate_radius = m_radius + tl.where(gate < inf, tie * tl.abs(gate), 0.0)
        within = m <= gate
        near_gate = tl.abs(m - gate) <= gate_radius
        certain = m + gate_radius < gate
        any_inside = any_inside | tl.where(gated & within, 1, 0)
        any_maybe = any_maybe | tl.where(gated & near_gate, 1, 0)
        any_certain = any_certain | tl.where(gated & certain, 1, 0)
        m_all = tl.where(present, m, inf)
        mc1 = tl.where(m_all < m1, number, mc1)
        m1 = tl.minimum(m1, m_all)
        ml1, ml2 = _insert2(tl.where(present, m - m_radius, inf), ml1, ml2)
        mu1 = tl.minimum(mu1, tl.where(present, m + m_radius, inf))
        m_chosen = tl.where(chosen_now, m_all, m_chosen)
        gate_near = tl.where(chosen_now, tl.where(gated & near_gate, 1, 0), gate_near)

    chosen = qc1 if ROBUST else ec1
    gate = tl.load(class_ptr + 2 * classes + chosen)
    margin = tl.load(class_ptr + 3 * classes + chosen)
    flags = tl.load(class_ptr + 4 * classes + chosen).to(tl.int32)
    gated = (flags & 2) > 0
    usable = (flags & 12) == 4  # support, and not abstaining
    same_m = mc1 == chosen
    all_agree = same_m & (qc1 == chosen) & (ec1 == chosen)
    accepted = tl.where(gated, (m_chosen <= gate) & ((flags & 1) > 0), all_agree)
    near = (ql2 <= qu1) & (ql2 < inf)
    near = near | ((el2 <= eu1) & (el2 < inf))
    m_near = (ml2 <= mu1) & (ml2 < inf)
    if ROBUST:
        accepted = accepted & (q2 - q1 >= margin)
        near = near | ((ql2 - qu1 < margin) & (margin <= qu2 - ql1) & (qu2 < inf))
        near = near | (m_near & (gated == 0))
        if AGREEMENT:
            accepted = accepted & ((ec1 == chosen) | (ec2 == chosen))
            near = near | ((el3 <= eu2) & (el3 < inf))
    else:
        accepted = accepted & same_m
        near = near | m_near
    accepted = accepted & usable & (known >= 2)
    near = near | (gate_near > 0) | ((any_maybe > 0) & (any_certain == 0))
    pseudo = tl.load(pseudo_ptr + rows, mask=inside, other=0)
    decided = tl.where(chosen == pseudo, _CONFIRMED, _CORRECTED)
    undecided = tl.where(gated & (any_inside == 0), _NOVEL, _AMBIGUOUS)
    code = tl.where(accepted, decided, undecided)
    code = tl.where(valid, code, _INVALID)
    tl.store(code_ptr + rows, code.to(tl.uint8), mask=inside)
    tl.store(near_ptr + rows, (near & valid).to(tl.uint8), mask=inside)
    chosen = tl.where(valid & (known > 0), chosen, _NO_CLASS)
    tl.store(chosen_ptr + rows, chosen.to(tl.uint8), mask=inside)
    m_chosen = tl.where(valid, m_chosen, inf)
    tl.store(mahalanobis_ptr + rows, m_chosen, mask=inside)
    _store_pair(euclid_ptr, euclid_class_ptr, rows, inside, valid, e1, ec1, e2, ec2)
    _store_pair(q_ptr, q_class_ptr, rows, inside, valid, q1, qc1, q2, qc2)


@triton.jit
def plar_kernel(
    x_ptr,
    pseudo_ptr,
    center_ptr,
    weight_ptr,  # [rows, FP] half: projection, then whitening of each class, DP rows each
    row_ptr,  # [1 + K, rows] float32: factor, bias of prototype 0, shifts of the others
    shift_ptr,  # [slots, KP] float32: squared length of the shifts, 0 for prototype 0, else inf
    high_ptr,  # [classes, KP, FP] half
    low_ptr,  # [classes, KP, FP] half
    flat_ptr,  # [2, classes, KP] float32: factor; squared length, inf where there is none
    variance_ptr,  # [classes, FP] bfloat16
    class_ptr,  # [7, classes] float32, see `pack`
    scratch_ptr,  # [3, slots, stride] float32
    euclid_class_ptr,
    euclid_ptr,
    q_class_ptr,
    q_ptr,
    chosen_ptr,
    mahalanobis_ptr,
    code_ptr,
    near_ptr,
    x_row,
    x_col,
    pixels,
    channels,
    classes,
    known,
    slots,
    stride,
    scale,
    limit,
    tie,
    error_factor,
    BQ: tl.constexpr,
    BN: tl.constexpr,
    BF: tl.constexpr,
    BC: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    ROBUST: tl.constexpr,
    AGREEMENT: tl.constexpr,
    STAGES: tl.constexpr,
    FEATURE_STAGES: tl.constexpr,
):
    """Scores of pixels [program x BQ, ...); the outputs are those of `PlarScores`."""
    rows = tl.program_id(0) * BQ + tl.arange(0, BQ)
    inside = rows < pixels
    m_ptr = scratch_ptr
    e_ptr = scratch_ptr + slots * stride
    t_ptr = scratch_ptr + 2 * slots * stride
    valid, length2 = _euclid_phase(
        x_ptr,
        center_ptr,
        high_ptr,
        low_ptr,
        flat_ptr,
        variance_ptr,
        e_ptr,
        t_ptr,
        rows,
        inside,
        x_row,
        x_col,
        pixels,
        channels,
        classes,
        slots,
        stride,
        scale,
        limit,
        BQ,
        BF,
        BC,
        FP,
        KP,
        FEATURE_STAGES,
    )
    _mahalanobis_phase(
        x_ptr,
        center_ptr,
        weight_ptr,
        row_ptr,
        shift_ptr,
        m_ptr,
        rows,
        inside,
        x_row,
        x_col,
        pixels,
        channels,
        classes,
        slots,
        stride,
        scale,
        limit,
        BQ,
        BN,
        FP,
        DP,
        K,
        KP,
        STAGES,
    )
    tl.debug_barrier()  # the scratch was written by other threads of this program
    _decision_phase(
        pseudo_ptr,
        class_ptr,
        m_ptr,
        e_ptr,
        t_ptr,
        euclid_class_ptr,
        euclid_ptr,
        q_class_ptr,
        q_ptr,
        chosen_ptr,
        mahalanobis_ptr,
        code_ptr,
        near_ptr,
        rows,
        inside,
        valid,
        length2,
        classes,
        known,
        stride,
        tie,
        error_factor,
        BQ,
        ROBUST,
        AGREEMENT,
    )
