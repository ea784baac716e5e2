"""The tables of a report: what was spent, accuracy by class, confusion, calibration."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.scene import ClassInfo
from geohsal.io.html_tree import element, table
from geohsal.refine.diagnosis import ErrorMaskQuality
from geohsal.workflows.report_facts import Asked, Measured, RoundFacts, RunFacts, Spent

MOST_CLASSES = 20
"""Classes of a confusion matrix; the smaller ones are added up."""

HEAT = 6
"""Shades of a confusion matrix."""


def swatch(color: str) -> ET.Element:
    """A small square of a colour."""
    square = element("rect", width=12, height=12, fill=color, stroke="#000", stroke_width=1)
    return element("svg", square, class_="swatch", viewBox="0 0 12 12", aria_hidden="true")


def class_table(facts: RunFacts) -> ET.Element:
    """Classes with their colours and what is labelled of them."""
    labelled = facts.status.labelled_pixels
    described = any(info.description for info in facts.classes)
    rows = (
        (info.name, swatch(info.color), f"{labelled[info.name]:,}")
        + ((info.description,) if described else ())
        for info in facts.classes
    )
    head = ("class", "colour", "labelled px") + (("description",) if described else ())
    return table(head, rows, class_="classes")


def spent_table(facts: RunFacts) -> ET.Element:
    """What each round cost, answered or still open, and all together."""
    rows = [
        row
        for item in facts.rounds
        for row in (
            (f"round {item.index}", *_spent_cells(item.spent)) if item.spent else None,
            _open_row(item),
        )
        if row is not None
    ]
    answered = [item.spent for item in facts.rounds if item.spent is not None]
    if len(answered) > 1:
        rows.append(("answered in all", *_spent_cells(_sum(answered))))
    head = ("", "regions", "pixels", "hectares", "minutes", "minutes are", "taken in")
    return table(head, rows, class_="spent")


def _spent_cells(spent: Spent) -> tuple[str, ...]:
    return (
        f"{spent.regions:,}",
        f"{spent.pixels:,}",
        _hectares(spent.ha),
        f"{spent.minutes:.0f}",
        how_timed(spent),
        spent.taken or "",
    )


def _open_row(item: RoundFacts) -> tuple[str, ...] | None:
    asked: Asked | None = item.asked
    if asked is None or item.step != "queried":
        return None
    return (
        f"round {item.index}, asked",
        f"{asked.regions:,}",
        f"{asked.pixels:,}",
        _hectares(asked.ha),
        f"{asked.minutes:.0f}",
        "expected",
        "not yet",
    )


def _hectares(ha: float | None) -> str:
    return "no ground" if ha is None else f"{ha:,.2f}"


def how_timed(spent: Spent) -> str:
    """Whether minutes come from the clock of the review or from the cost model."""
    if spent.measured == 0:
        return "expected"
    if spent.measured == spent.regions:
        return "measured"
    return f"measured in {spent.measured:,} of {spent.regions:,} regions"


def _sum(parts: Sequence[Spent]) -> Spent:
    areas = [part.ha for part in parts if part.ha is not None]
    return Spent(
        regions=sum(part.regions for part in parts),
        pixels=sum(part.pixels for part in parts),
        ha=sum(areas) if len(areas) == len(parts) else None,
        minutes=sum(part.minutes for part in parts),
        measured=sum(part.measured for part in parts),
        taken=None,
    )


def accuracy_table(found: Measured, classes: Sequence[ClassInfo]) -> ET.Element:
    """User's and producer's accuracy, IoU, F1 and pixels by class; a dash where absent."""
    names = ("users_accuracy", "producers_accuracy", "iou", "f1")
    rows = (
        (info.name, *(number(row.get(key)) for key in names), f"{row['pixels']:,}")
        for info in classes
        for row in (found.per_class[info.name],)
    )
    return table(
        ("class", "user's accuracy", "producer's accuracy", "IoU", "F1", "reference px"), rows
    )


def number(value: float | None, digits: int = 3) -> str:
    """A figure, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def confusion_table(found: Measured, classes: Sequence[ClassInfo]) -> ET.Element:
    """Pixels by class of the reference (rows) and of the map (columns), shaded by row."""
    names, matrix = _folded([info.name for info in classes], found.confusion)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    corner = element("th", "reference \u2193  map \u2192", scope="col")
    top = element("tr", corner, *(element("th", name, scope="col") for name in names))
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(
                element("td", f"{int(count):,}", class_=_shade(share[row, column], row == column))
                for column, count in enumerate(matrix[row])
            ),
        )
        for row, name in enumerate(names)
    ]
    made = element("table", element("thead", top), element("tbody", *body), class_="confusion")
    return element("div", made, class_="wide", tabindex=0)


def _folded(names: Sequence[str], matrix: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """The largest classes in their order, the others added up in one more."""
    if len(names) <= MOST_CLASSES:
        return list(names), matrix
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    kept = np.sort(np.argsort(-sizes, kind="stable")[: MOST_CLASSES - 1])
    group = np.full(len(names), len(kept))
    group[kept] = np.arange(len(kept))
    folded = np.zeros((len(kept) + 1,) * 2, np.int64)
    np.add.at(folded, (group[:, None], group[None, :]), matrix)
    others = f"{len(names) - len(kept):,} other classes"
    return [*(names[index] for index in kept.tolist()), others], folded


def _shade(share: float, hit: bool) -> str | None:
    level = int(np.ceil(share * HEAT))
    words = ([f"h{level}"] if level else []) + (["hit"] if hit else [])
    return " ".join(words) or None


def quality_table(rounds: Sequence[RoundFacts]) -> ET.Element:
    """AUROC, AUPR and ECE of the error mask, of all pixels and of confident ones, by round."""
    rows = [
        (f"round {item.index}, {name}", *_quality_cells(quality))
        for item in rounds
        if item.calibration is not None
        for name, quality in (
            ("all pixels", item.calibration.every),
            ("confident pixels", item.calibration.confident),
        )
    ]
    return table(("", "AUROC", "AUPR", "ECE", "pixels", "teacher's errors"), rows)


def _quality_cells(found: ErrorMaskQuality) -> tuple[str, ...]:
    figures = (number(found.auroc), number(found.aupr), number(found.ece))
    return (*figures, f"{found.pixels:,}", f"{found.errors:,}")
