"""Learning curves of a simulation: accuracy against labels, hectares and minutes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from geohsal.config.methods import FOREST, FULL, OURS
from geohsal.io.atomic import replacing
from geohsal.workflows.simulate_rows import Row
from geohsal.workflows.simulate_summary import Curves, curves_of

Value = Callable[[Row], float | None]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f")
"""Colour-blind-safe (Okabe and Ito, yellow replaced by a brown that shows on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FULL_COLOUR = "#666666"
PLAR = "plar"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """What is drawn along an axis; values that are None are left out."""

    label: str
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How one method and strategy is drawn: the forest dashed, in its strategy's colour."""

    label: str
    colour: str
    marker: str
    dashed: bool


SHARE = _Axis(label="labels asked for (% of train pixels)", value=lambda row: 100 * row.spent_share)
HECTARES = _Axis(label="area asked about (ha)", value=lambda row: row.spent_ha)
MINUTES = _Axis(label="estimated review time (min)", value=lambda row: row.spent_min)
ACCURACIES = (
    _Axis(label="mIoU", value=lambda row: row.miou),
    _Axis(label="overall accuracy", value=lambda row: row.oa),
)


def draw_curves(rows: Sequence[Row], folder: Path) -> tuple[Path, ...]:
    """Write curves.png, curves.svg and curves_classes.png; gives back their paths."""
    groups, full = curves_of(rows), [row for row in rows if row.method == FULL]
    if not groups:
        return ()
    spent = [SHARE, *(axis for axis in (HECTARES, MINUTES) if _any_above_zero(groups, axis))]
    name = rows[0].dataset
    whole = _figure(
        f"{name}: accuracy by what was asked",
        [(across, up) for up in ACCURACIES for across in spent],
        groups,
        full,
        columns=len(spent),
    )
    classes = list(dict.fromkeys(name for row in rows for name in row.iou))
    per_class = _figure(
        f"{name}: IoU per class",
        [(SHARE, _class_axis(class_name)) for class_name in classes],
        groups,
        full,
        columns=min(3 if len(classes) <= 6 else 4, len(classes)),
    )
    return (
        _save(whole, folder / "curves.png"),
        _save(whole, folder / "curves.svg"),
        _save(per_class, folder / "curves_classes.png"),
    )


def _class_axis(name: str) -> _Axis:
    return _Axis(label=name.replace("_", " "), value=lambda row: row.iou.get(name))


def _any_above_zero(groups: Mapping[tuple[str, str], Curves], axis: _Axis) -> bool:
    return any(
        (axis.value(row) or 0) > 0
        for curves in groups.values()
        for own in curves.values()
        for row in own
    )


def _figure(
    title: str,
    panels: Sequence[tuple[_Axis, _Axis]],
    groups: Mapping[tuple[str, str], Curves],
    full: Sequence[Row],
    *,
    columns: int,
) -> Figure:
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(4.2 * columns + 2.4, 3.4 * rows + 0.9),
        layout=ConstrainedLayoutEngine(w_pad=0.10, h_pad=0.08),  # inches
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    styles = _styles({key: len(curves) for key, curves in groups.items()})
    for number, axis in enumerate(axes.flat):
        if number >= len(panels):
            axis.set_axis_off()
            continue
        across, up = panels[number]
        _draw(axis, groups, styles, across=across, up=up)
        _draw_full(axis, full, up)
        axis.set_xlabel(across.label)
        axis.set_ylabel(up.label if up in ACCURACIES else f"IoU of {up.label}")
        if up not in ACCURACIES:  # from 0: a class near it must not look lively
            axis.set_ylim(0, max(axis.get_ylim()[1], 0.1))
        axis.grid(color="#e5e5e5", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    seeds = sorted({len(curves) for curves in groups.values()})
    counted = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    several = f"{title} (mean and range of {counted} seeds)"
    figure.suptitle(several if seeds[-1] > 1 else title)
    figure.legend(
        handles=_handles(styles, full), loc="outside right upper", frameon=False, fontsize=9
    )
    return figure


def _styles(seeds: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], _Style]:
    """The own method with its own strategy first; others by name, with seeds where they differ."""
    own = sorted(
        (key for key in seeds if key[0] != FOREST),
        key=lambda key: (key != (OURS, PLAR), key[0] != OURS, key),
    )
    places = {key: number for number, key in enumerate(own)}
    methods = {method for method, _ in own}
    styles = {}
    for method, strategy in [*own, *(key for key in seeds if key[0] == FOREST)]:
        place = places.get((OURS if method == FOREST else method, strategy), len(own))
        words = strategy if len(methods) == 1 else f"{method}, {strategy}"
        words = f"forest on {strategy}'s labels" if method == FOREST else words
        count = f" ({seeds[method, strategy]} seeds)" if len({*seeds.values()}) > 1 else ""
        styles[method, strategy] = _Style(
            label=words + count,
            colour=PALETTE[place % len(PALETTE)],
            marker=MARKERS[(place + place // len(PALETTE)) % len(MARKERS)],
            dashed=method == FOREST,
        )
    return styles


def _draw(
    axis: Axes,
    groups: Mapping[tuple[str, str], Curves],
    styles: Mapping[tuple[str, str], _Style],
    *,
    across: _Axis,
    up: _Axis,
) -> None:
    for key, style in reversed(list(styles.items())):  # the first lies on top
        x, y = _means(groups[key], across), _values(groups[key], up)
        known = ~(np.isnan(x) | np.isnan(y).all(axis=0))
        if not known.any():
            continue
        x, y = x[known], y[:, known]
        if len(y) > 1 and not style.dashed:
            axis.fill_between(
                x, np.nanmin(y, 0), np.nanmax(y, 0), color=style.colour, alpha=0.12, linewidth=0
            )
        axis.plot(
            x,
            np.nanmean(y, axis=0),
            color=style.colour,
            marker=None if style.dashed else style.marker,
            linestyle="--" if style.dashed else "-",
            linewidth=1.3 if style.dashed else 1.9,
            markersize=5,
        )


def _values(curves: Curves, axis: _Axis) -> NDArray[np.float64]:
    """(seed, round), NaN where there is none."""
    found = np.full((len(curves), max(len(own) for own in curves.values())), np.nan)
    for number, own in enumerate(curves.values()):
        for place, row in enumerate(own):
            value = axis.value(row)
            found[number, place] = np.nan if value is None else value
    return found


def _means(curves: Curves, axis: _Axis) -> NDArray[np.float64]:
    values = _values(curves, axis)
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _draw_full(axis: Axes, full: Sequence[Row], up: _Axis) -> None:
    values = [value for value in map(up.value, full) if value is not None]
    if values:
        axis.axhline(float(np.mean(values)), color=FULL_COLOUR, linestyle="-.", linewidth=1.3)
        if len(values) > 1:
            axis.axhspan(min(values), max(values), color=FULL_COLOUR, alpha=0.10, linewidth=0)


def _handles(styles: Mapping[tuple[str, str], _Style], full: Sequence[Row]) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker="" if style.dashed else style.marker,
            linestyle="--" if style.dashed else "-",
            markersize=5,
            label=style.label,
        )
        for style in styles.values()
    ]
    if full:
        handles.append(
            Line2D([], [], color=FULL_COLOUR, linestyle="-.", label="all train pixels labelled")
        )
    return handles


def _save(figure: Figure, path: Path) -> Path:
    with (
        rc_context({"svg.hashsalt": "geohsal"}),
        replacing(path) as part,
    ):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(part, dpi=130, metadata=metadata)
    return path
