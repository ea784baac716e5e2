"""A round's diagnostics as one picture: reliability, flips by class, states, hit rates."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geohsal.geo.states import STATE_COLORS
from geohsal.io.atomic import replacing
from geohsal.refine.diagnosis import ErrorMaskQuality
from geohsal.refine.region_share import RegionShare
from geohsal.workflows.diagnose import FREE_STATES, RoundDiagnostics

RIGHT, WRONG, NEUTRAL = "#117733", "#d7191c", "#bbbbbb"
ALL, SURE = "#332288", "#ee7733"


def draw_diagnostics(found: RoundDiagnostics, path: Path) -> None:
    """Draw the four panels into a PNG.

    Raises:
        DataError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    figure.suptitle(f"Round {found.round}, judged by {found.reference}", fontsize=16)
    _reliability(axes[0, 0], found)
    _flips(axes[0, 1], found)
    _states(axes[1, 0], found)
    _hits(axes[1, 1], found)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as part:
        figure.savefig(part, dpi=100)


def _reliability(axis: Axes, found: RoundDiagnostics) -> None:
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for quality, name, colour in (
        (found.judged.error_mask, "all pixels", ALL),
        (found.judged.confident, "confidence 0.9 and more", SURE),
    ):
        if quality.pixels:
            _curve(axis, quality, name, colour)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.set_xlabel("error probability stated")
    axis.set_ylabel("share of pixels where the teacher is wrong")
    axis.set_title("Error mask: is what it states true?")
    if found.judged.pixels:
        axis.legend(loc="upper left", frameon=False, fontsize=9)


def _curve(axis: Axes, quality: ErrorMaskQuality, name: str, colour: str) -> None:
    """A point per bin; its area says how many pixels lie there."""
    bins = quality.reliability
    stated, share = [item.stated for item in bins], [item.found for item in bins]
    sizes = [20 + 300 * item.pixels / quality.pixels for item in bins]
    auroc = "-" if quality.auroc is None else f"{quality.auroc:.2f}"
    axis.plot(stated, share, color=colour, linewidth=1.2)
    axis.scatter(stated, share, s=sizes, color=colour, alpha=0.6, linewidth=0)
    axis.plot([], [], color=colour, marker="o", label=f"{name} (AUROC {auroc})")


def _flips(axis: Axes, found: RoundDiagnostics) -> None:
    plar = found.judged.plar
    rows = np.arange(len(found.classes))
    left = np.zeros(len(rows))
    for counts, name, colour in (
        (plar.right, "right", RIGHT),
        (plar.wrong, "wrong", WRONG),
        (plar.neutral, "neutral (both wrong)", NEUTRAL),
    ):
        axis.barh(rows, counts, left=left, color=colour, label=f"{name} ({sum(counts):,})")
        left += np.asarray(counts)
    axis.set_yticks(rows, [name.replace("_", " ") for name in found.classes])
    axis.invert_yaxis()
    axis.set_xlim(0, max(float(left.max(initial=0.0)) * 1.05, 1.0))
    axis.set_xlabel("corrected pixels, by the class they were given")
    if plar.corrected is None:
        axis.set_xticks([0])
        axis.text(0.5, 0.5, "nothing was corrected", ha="center", transform=axis.transAxes)
        axis.set_title("Corrections")
        return
    axis.set_title(f"Corrections: {_percent(plar.corrected)} became right")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=9, ncols=3)


def _states(axis: Axes, found: RoundDiagnostics) -> None:
    counts = [found.states.get(state.name, 0) for state in FREE_STATES]
    total = max(sum(counts), 1)
    shares = [count / total for count in counts]
    rows = np.arange(len(FREE_STATES))
    colours = [STATE_COLORS[state] for state in FREE_STATES]
    axis.barh(rows, shares, color=colours, edgecolor="#666666", linewidth=0.5)
    for row, share in zip(rows.tolist(), shares, strict=True):
        words = f"{share:.1%}" if any(counts) else "unknown"
        axis.text(share + 0.01, row, words, va="center", fontsize=10)
    axis.set_yticks(rows, [state.name for state in FREE_STATES])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12)
    axis.set_xticks(np.linspace(0, 1, 6), [f"{value:.0%}" for value in np.linspace(0, 1, 6)])
    axis.set_xlabel("share of unlabelled pixels of all scenes")
    axis.set_title("States")


def _hits(axis: Axes, found: RoundDiagnostics) -> None:
    parts = [("regions chosen\nfor their worth", found.chosen.teacher, ALL)]
    parts += [("random audit\nregions", found.audit.teacher, NEUTRAL)]
    if found.reference == "truth":
        parts += [("whole pool", found.judged.teacher, NEUTRAL)]
    for place, (_, right, colour) in enumerate(parts):
        if right is None:
            axis.text(place, 0.01, "no evidence", ha="center", fontsize=10)
            continue
        wrong = 1 - right.share
        reach = [[right.high - right.share], [right.share - right.low]]
        axis.bar(place, wrong, color=colour, width=0.6)
        axis.errorbar(place, wrong, yerr=reach, color="black", capsize=5, linewidth=1.2)
        text = f"{wrong:.1%}\n{right.regions:,} regions"
        axis.text(place + 0.04, 1 - right.low + 0.015, text, ha="center", fontsize=10)
    axis.set_xticks(range(len(parts)), [name for name, _, _ in parts])
    axis.set_xlim(-0.6, len(parts) - 0.4)
    lows = [1 - right.low for _, right, _ in parts if right is not None]
    axis.set_ylim(0, min(max([*lows, 0.1]) * 1.2 + 0.05, 1.15))
    axis.set_ylabel("share of pixels where the teacher is wrong")
    axis.set_title("Do the questions hit? (95 % intervals by regions)")


def _percent(share: RegionShare) -> str:
    return f"{share.share:.1%} ({share.low:.0%} to {share.high:.0%})"
