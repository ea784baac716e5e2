"""The charts of a report as inline SVG, in colours that colour-blind people can tell apart."""

import io
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geohsal.geo.budget import counted
from geohsal.geo.states import STATE_COLORS
from geohsal.io.html_tree import inline_svg
from geohsal.refine.diagnosis import ErrorMaskQuality
from geohsal.workflows.diagnose import FREE_STATES
from geohsal.workflows.report_facts import Measured

BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#767676"
"""After Okabe and Ito."""

ACCURACIES = {"oa": "overall accuracy", "miou": "mIoU"}

MOST_MARKED = 4
"""Rounds with figures beside them; of more, only every so many."""

WIDTH_IN = 4.4
"""At 72 units per inch about the width of a phone: text keeps its size there."""

_SETTINGS: dict[Any, Any] = {  # newer matplotlib types its keys one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "geohsal",
    "text.parse_math": False,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def accuracy_chart(points: Sequence[tuple[int, int, Measured]]) -> ET.Element:
    """Overall accuracy and mIoU by round.

    Args:
        points: (round, regions answered before its training, evaluation), oldest first.
    """
    marked = points[:: -(-len(points) // MOST_MARKED)]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for name, colour, marker, above in (("oa", BLUE, "o", 8), ("miou", RED, "s", -17)):
            axis.plot(
                [index for index, _, _ in points],
                [getattr(found, name) for _, _, found in points],
                color=colour,
                marker=marker,
                linewidth=2,
                label=ACCURACIES[name],
            )
            for index, _, found in marked:
                value = getattr(found, name)
                axis.annotate(
                    f"{value:.3f}", (index, value), (0, above), textcoords="offset points",
                    ha="center",
                )  # fmt: skip
        axis.set_xticks(
            [index for index, _, _ in marked],
            [f"round {index}\n{counted(regions, 'region')}" for index, regions, _ in marked],
        )
        axis.set_xlim(points[0][0] - 0.5, points[-1][0] + 0.5)
        axis.set_ylim(-0.08, 1.08)
        axis.set_yticks(np.linspace(0, 1, 6))
        axis.set_ylabel("accuracy on test pixels")
        axis.grid(axis="y", color="#dddddd")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)

    return _chart(draw, height_in=3.4, prefix="accuracy", title="Accuracy by round")


def reliability_chart(quality: ErrorMaskQuality) -> ET.Element:
    """Per bin of the stated error probability: the share that was wrong, and how many pixels."""

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        bins = quality.reliability
        lows = [item.low for item in bins]
        widths = [item.high - item.low for item in bins]
        found = [item.found for item in bins]
        upper.bar(lows, found, widths, align="edge", color=BLUE, edgecolor="white", label="wrong")
        stated = [item.stated for item in bins]
        upper.plot(stated, stated, "D", color=ORANGE, markersize=5, label="as stated")
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        upper.set_ylabel("share wrong")
        upper.legend(loc="upper left", frameon=False)
        counts = [item.pixels for item in bins]
        lower.bar(lows, counts, widths, align="edge", color=GREY, edgecolor="white")
        lower.set_ylabel("pixels")
        lower.set_xlabel("error probability stated")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        lower.yaxis.set_major_formatter(lambda value, _: _short(value))

    return _chart(draw, height_in=4.2, prefix="reliability", title="Reliability of the error mask")


def states_chart(rounds: Sequence[tuple[int, dict[str, float]]]) -> ET.Element:
    """Shares of unlabelled pixels by state, one bar per round.

    Args:
        rounds: (round, share by name of the state), oldest first.
    """

    def draw(figure: Figure) -> None:
        axis: Axes = figure.subplots()
        rows = np.arange(len(rounds))
        left = np.zeros(len(rounds))
        for state in FREE_STATES:
            shares = np.array([shares[state.name] for _, shares in rounds])
            axis.barh(
                rows, shares, left=left, color=STATE_COLORS[state], edgecolor="#555555",
                linewidth=0.5, label=state.name.lower(),
            )  # fmt: skip
            left += shares
        axis.set_yticks(rows, [f"round {index}" for index, _ in rounds])
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        ticks = np.linspace(0, 1, 5)
        axis.set_xticks(ticks, [f"{value:.0%}" for value in ticks])
        axis.set_xlabel("share of unlabelled pixels")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)

    height = 1.5 + 0.42 * len(rounds)
    return _chart(draw, height_in=height, prefix="states", title="States of pixels by round")


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _chart(
    draw: Callable[[Figure], None], *, height_in: float, prefix: str, title: str
) -> ET.Element:
    """A figure drawn into an element; the same figure gives the same bytes."""
    stream = io.StringIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # measured here, drawn by the browser's fonts
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    return inline_svg(stream.getvalue(), prefix=prefix, title=title)
