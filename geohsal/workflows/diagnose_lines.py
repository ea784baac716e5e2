"""A round's diagnostics for people: two lines after an ingest, a table on request."""

from collections.abc import Iterator

from geohsal.geo.budget import counted
from geohsal.refine.diagnosis import ErrorMaskQuality, RoundDiagnosis
from geohsal.refine.region_share import RegionShare
from geohsal.workflows.diagnose import FREE_STATES, RoundDiagnostics

WIDTH = 34


def short_lines(found: RoundDiagnostics) -> tuple[str, ...]:
    """How often the questions hit, and what refinement did, in two lines."""
    plar = found.judged.plar
    wrong = (
        f"of {found.judged.pixels:,} answered px the teacher was wrong on "
        f"{_wrong(found.chosen)} where it was asked for its worth (random audit: "
        f"{_wrong(found.audit)}), by regions at 95 %"
    )
    corrected = sum(plar.right) + sum(plar.wrong) + sum(plar.neutral)
    flips = f"PLAR corrected {corrected:,} of them"
    if corrected:
        flips += (
            f": {sum(plar.right):,} right, {sum(plar.wrong):,} wrong, {sum(plar.neutral):,} neutral"
        )
    if plar.confirmed:
        flips += f"; confirmed {plar.confirmed.pixels:,}: {plar.confirmed.hits:,} right"
    return (wrong, flips) if found.judged.pixels else ("no answered pixel got a class",)


def _wrong(part: RoundDiagnosis) -> str:
    share = _errors(part)
    return "nothing" if share is None else _share(share)


def _errors(part: RoundDiagnosis) -> RegionShare | None:
    """The share of wrong pixels instead of right ones."""
    right = part.teacher
    if right is None:
        return None
    return RegionShare(
        hits=right.pixels - right.hits,
        pixels=right.pixels,
        regions=right.regions,
        share=1 - right.share,
        low=1 - right.high,
        high=1 - right.low,
    )


def _share(share: RegionShare) -> str:
    return f"{100 * share.share:.1f} % ({100 * share.low:.1f}-{100 * share.high:.1f})"


def diagnosis_lines(found: RoundDiagnostics) -> Iterator[str]:
    """Everything as a table; a dash where nothing can tell."""
    judged = found.judged
    where = "answered pixels" if found.reference == "answers" else "pool pixels with a truth"
    yield (
        f"round {found.round} against {found.reference}: {judged.pixels:,} {where} in "
        f"{counted(judged.regions, 'region')}"
    )
    yield f"  {'':{WIDTH}} {'share':>8} {'95 % by regions':>17} {'pixels':>10} {'regions':>8}"
    yield _row("teacher wrong, regions chosen", _errors(found.chosen))
    yield _row("teacher wrong, random audit", _errors(found.audit))
    yield _row("teacher right", judged.teacher)
    yield _row("refined map right", judged.refined)
    yield _row("PLAR corrected: now right", judged.plar.corrected)
    yield _row("PLAR confirmed: right", judged.plar.confirmed)
    heads = f"{'AUROC':>8} {'AUPR':>8} {'ECE':>8} {'pixels':>10} {'errors':>8}"
    yield f"  {'error mask':{WIDTH}} {heads}"
    yield _quality("all pixels", judged.error_mask)
    yield _quality("confident pixels (0.9 and more)", judged.confident)
    yield f"  {'PLAR by class':{WIDTH}} {'right':>8} {'wrong':>8} {'neutral':>8} {'confirmed':>10}"
    yield from _flips(found)
    yield from _rest(found)


def _row(name: str, share: RegionShare | None) -> str:
    if share is None:
        return f"  {name:{WIDTH}} {'-':>8}"
    interval = f"{100 * share.low:.1f} to {100 * share.high:.1f} %"
    return (
        f"  {name:{WIDTH}} {100 * share.share:>6.1f} % {interval:>17} {share.pixels:>10,} "
        f"{share.regions:>8,}"
    )


def _quality(name: str, found: ErrorMaskQuality) -> str:
    figures = (found.auroc, found.aupr, found.ece)
    cells = " ".join(f"{'-' if value is None else f'{value:.3f}':>8}" for value in figures)
    return f"  {name:{WIDTH}} {cells} {found.pixels:>10,} {found.errors:>8,}"


def _flips(found: RoundDiagnostics) -> Iterator[str]:
    plar = found.judged.plar
    for number, name in enumerate(found.classes):
        confirmed = plar.confirmed_right[number] + plar.confirmed_wrong[number]
        yield (
            f"    {name:{WIDTH - 2}} {plar.right[number]:>8,} {plar.wrong[number]:>8,} "
            f"{plar.neutral[number]:>8,} {confirmed:>10,}"
        )
    yield f"  net gain of the corrections: {plar.net_gain:+,} px"


def _rest(found: RoundDiagnostics) -> Iterator[str]:
    free = sum(found.states.get(state.name, 0) for state in FREE_STATES)
    if free:
        shares = ", ".join(
            f"{state.name.lower()} {found.states.get(state.name, 0) / free:.1%}"
            for state in FREE_STATES
        )
        yield f"  unlabelled pixels: {shares}"
    if found.friend_disagreement is not None:
        yield f"  friend and teacher differ on {found.friend_disagreement:.1%} (in training)"
    if found.changed_share is not None:
        yield f"  changed since the round before: {found.changed_share:.1%} of the pool"
    yield f"  refinement leaves alone: {', '.join(found.abstaining) or 'no class'}"
    yield from (f"    {name}: {why}" for name, why in found.abstaining.items())
    yield f"  warnings of the training: {len(found.guards) or 'none'}"
    yield from (f"    {line}" for line in found.guards)
