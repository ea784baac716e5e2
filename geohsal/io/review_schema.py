"""The review file's layers and fields: names people and other programs rely on, in one place.

The writer, the forms, the field domains and the reader all follow these tables.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "int", "big", "real", "bool"]
Choices = Literal["class", "status"]

REGIONS = "query_regions"
ANSWERS = "answers"
UNDECIDED = "undecided"
PSEUDO_LABELS = "pseudo_labels"
CONFLICTS = "conflicts"

STATUSES = {"todo": "To do", "done": "Done", "unsure": "Unsure", "skipped": "Skipped"}
"""Value of `status` -> what the form calls it."""

SOURCES = ("teacher", "confirmed", "corrected", "label")
"""Where a pseudo-label comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One column: `alias` is its name in forms, `choices` the list its values come from."""

    name: str
    kind: Kind
    alias: str
    note: str = ""
    editable: bool = False
    choices: Choices | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: `title` and `description` are what GIS software shows beside its name."""

    name: str
    title: str
    description: str
    fields: tuple[Field, ...]

    @property
    def editable(self) -> bool:
        """Whether a reviewer may change anything in it."""
        return any(field.editable for field in self.fields)

    def field(self, name: str) -> Field:
        """A field by name."""
        return next(field for field in self.fields if field.name == name)


_NOTES = Field(name="notes", kind="text", alias="Notes", editable=True)
_SCENE = Field(name="scene_id", kind="text", alias="Scene")
_REGION = Field(name="region_id", kind="text", alias="Region", note="scene, grid and cell")
_AREA = Field(name="area_m2", kind="real", alias="Area (m²)")
_PIXELS = Field(name="pixels", kind="int", alias="Pixels")
_SOURCE = Field(
    name="source", kind="text", alias="Source", note="teacher, confirmed, corrected or label"
)

REGIONS_LAYER = Layer(
    name=REGIONS,
    title="Query regions",
    description="Regions to review: set the status; a class only where all of it is one class",
    fields=(
        _REGION,
        _SCENE,
        Field(name="round", kind="int", alias="Round"),
        Field(name="rank", kind="int", alias="Rank", note="1 is asked first"),
        Field(name="score", kind="real", alias="Score", note="value per cost"),
        Field(name="reason", kind="text", alias="Why"),
        Field(name="error_probability", kind="real", alias="Error probability", note="mean"),
        Field(name="undecided_share", kind="real", alias="Undecided share"),
        Field(name="teacher_class", kind="int", alias="Teacher says", choices="class"),
        Field(name="plar_class", kind="int", alias="Refinement says", choices="class"),
        Field(name="margin", kind="real", alias="Margin", note="score distance of the best two"),
        _AREA,
        _PIXELS,
        Field(name="cost_min", kind="real", alias="Cost (min)"),
        Field(name="audit", kind="bool", alias="Random audit"),
        Field(
            name="status",
            kind="text",
            alias="Status",
            note="done: everything inside is known; todo, unsure, skipped teach nothing",
            editable=True,
            choices="status",
        ),
        Field(
            name="assigned_class",
            kind="int",
            alias="Whole region is",
            note="empty: the answers inside hold",
            editable=True,
            choices="class",
        ),
        _NOTES,
        Field(name="reviewed_by", kind="text", alias="Reviewed by"),
        Field(name="reviewed_ms", kind="big", alias="Reviewed at", note="ms since 1970, UTC"),
    ),
)

ANSWERS_LAYER = Layer(
    name=ANSWERS,
    title="Answers",
    description="One polygon per class patch in a region: reclass, reshape, split, add or delete",
    fields=(
        Field(name="answer_id", kind="text", alias="Answer"),
        _REGION,
        _SCENE,
        Field(name="suggested_class", kind="int", alias="Suggested class", choices="class"),
        _SOURCE,
        Field(
            name="assigned_class",
            kind="int",
            alias="Class",
            note="empty: the suggestion holds",
            editable=True,
            choices="class",
        ),
        _NOTES,
    ),
)

UNDECIDED_LAYER = Layer(
    name=UNDECIDED,
    title="Undecided",
    description="Patches that refinement could not decide (read-only)",
    fields=(
        _SCENE,
        Field(name="state", kind="text", alias="State", note="AMBIGUOUS or NOVEL"),
        _PIXELS,
        _AREA,
    ),
)

PSEUDO_LABELS_LAYER = Layer(
    name=PSEUDO_LABELS,
    title="Pseudo-labels",
    description="Refined pseudo-labels in and around the regions (read-only)",
    fields=(
        _SCENE,
        Field(name="class_id", kind="int", alias="Class", choices="class"),
        Field(name="class_name", kind="text", alias="Class name"),
        _SOURCE,
        Field(
            name="old_class",
            kind="int",
            alias="Before correction",
            note="the teacher's class",
            choices="class",
        ),
        Field(name="confidence", kind="real", alias="Confidence", note="mean of the teacher's"),
        _AREA,
    ),
)

LAYERS = (REGIONS_LAYER, ANSWERS_LAYER, UNDECIDED_LAYER, PSEUDO_LABELS_LAYER)
"""In the order of the legend, top to bottom."""
