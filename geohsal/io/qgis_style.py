"""The layers that people review as QGIS shows them: one QML body each, for file and project."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

from geohsal.geo.scene import ClassInfo
from geohsal.io import review_schema as schema
from geohsal.io.qgis_form import Constraint, Form, form_elements
from geohsal.io.qgis_symbols import (
    Category,
    casing,
    categorised,
    class_categories,
    corner_labels,
    fill,
    inside_labels,
    outline,
)
from geohsal.io.qgis_xml import DOCTYPE, QGIS_VERSION, xml_text
from geohsal.io.review_schema import Layer

UNASSIGNED = "#ffd400"
_HEAD = {
    "styleCategories": "AllStyleCategories",
    "simplifyDrawingHints": "1",
    "simplifyLocal": "1",
    "simplifyDrawingTol": "1",
    "simplifyMaxScale": "1",
    "simplifyAlgorithm": "0",
    "minScale": "100000000",
    "maxScale": "0",
    "hasScaleBasedVisibilityFlag": "0",
    "symbologyReferenceScale": "-1",
}
_MULTI_POLYGON = "2"

_REGION_FORM = Form(
    null_label="— as the answers inside say —",
    groups={
        "Decide": ("reason", "status", "assigned_class", "notes"),
        "Why here": (
            "rank",
            "audit",
            "teacher_class",
            "plar_class",
            "error_probability",
            "undecided_share",
            "margin",
            "score",
        ),
        "Region": (
            "region_id",
            "scene_id",
            "round",
            "pixels",
            "area_m2",
            "cost_min",
            "reviewed_by",
            "reviewed_ms",
        ),
    },
    defaults={
        "status": """if("status" = 'todo' and "assigned_class" is not null, 'done', "status")""",
        "reviewed_by": "coalesce(nullif(@user_full_name, ''), @user_account_name)",
        "reviewed_ms": "epoch(now())",
    },
    constraints={
        "status": Constraint(not_null=True, hard=True),
        "assigned_class": Constraint(
            expression=""""assigned_class" is null or "status" = 'done'""",
            message="A class counts only where the status is Done",
        ),
    },
    columns=("rank", "status", "assigned_class", "notes", "reason"),
    widths={"rank": 50, "status": 90, "assigned_class": 190, "notes": 160, "reason": 400},
    sort='"rank"',
    preview="""lpad("rank", 4, '0') || ' ' || coalesce("status", '')""",
    map_tip="""<b>[% "rank" %] [% "region_id" %]</b><br>[% "reason" %]<br>[% "status" %]""",
)

_ANSWER_FORM = Form(
    null_label="— as suggested —",
    groups={
        "Decide": ("assigned_class", "notes"),
        "Suggestion": ("suggested_class", "source", "answer_id", "region_id", "scene_id"),
    },
    constraints={
        "assigned_class": Constraint(
            expression='coalesce("assigned_class", "suggested_class") is not null',
            message="Choose a class",
            hard=True,
        ),
    },
    columns=("region_id", "suggested_class", "assigned_class", "notes"),
    widths={"region_id": 180},
    sort='"answer_id"',
    preview="""coalesce("answer_id", 'added')""",
)

_BOTH_CLASSES = """represent_value("class_a") || ' / ' || represent_value("class_b")"""

_CONFLICT_FORM = Form(
    null_label="— not settled: stays unknown —",
    groups={
        "Decide": ("assigned_class", "notes"),
        "What was said": ("class_a", "reviewer_a", "class_b", "reviewer_b"),
        "Where": ("conflict_id", "region_id", "scene_id", "pixels"),
    },
    columns=("class_a", "class_b", "assigned_class", "notes", "pixels"),
    widths={"class_a": 140, "class_b": 140, "assigned_class": 190},
    sort='"conflict_id"',
    preview=f"""{_BOTH_CLASSES} || ' ' || "conflict_id\"""",
)

_ANSWER_CLASS = (
    'if("assigned_class" is null, represent_value("suggested_class"), '
    'represent_value("assigned_class"))'
)

_LABELS = {
    schema.REGIONS: lambda: corner_labels('"rank"'),
    schema.ANSWERS: lambda: inside_labels(_ANSWER_CLASS),
    schema.CONFLICTS: lambda: corner_labels(_BOTH_CLASSES),
}

_FORMS = {
    schema.REGIONS: _REGION_FORM,
    schema.ANSWERS: _ANSWER_FORM,
    schema.CONFLICTS: _CONFLICT_FORM,
}


def _kind(layer: Layer) -> str:
    """The layer's name without the scene that layers of local conflicts carry in theirs."""
    return schema.CONFLICTS if layer.name.startswith(schema.CONFLICTS) else layer.name


def layer_body(layer: Layer, classes: Sequence[ClassInfo]) -> list[ET.Element]:
    """QML elements of a layer: colours, labels, form; the same in a GeoPackage and a project."""
    kind = _kind(layer)
    form = _FORMS.get(kind, Form(preview='"scene_id"'))
    body = [_RENDERERS.get(kind, _class_areas)(classes)]
    if kind in _LABELS:
        body.append(_LABELS[kind]())
    body += form_elements(layer, form, classes)
    geometry = ET.Element("layerGeometryType")
    geometry.text = _MULTI_POLYGON
    return [*body, geometry]


def layer_head(layer: Layer) -> dict[str, str]:
    """Attributes that belong to the body: read-only, labels, drawing."""
    return {
        **_HEAD,
        "readOnly": str(int(not layer.editable)),
        "labelsEnabled": str(int(_kind(layer) in _LABELS)),
    }


def layer_qml(layer: Layer, classes: Sequence[ClassInfo]) -> str:
    """A whole QML document, as `layer_styles.styleQML` holds it."""
    root = ET.Element("qgis", {"version": QGIS_VERSION, **layer_head(layer)})
    root.extend(layer_body(layer, classes))
    return DOCTYPE + xml_text(root)


def _regions(classes: Sequence[ClassInfo]) -> ET.Element:
    """Outlines: dashed while to do, dotted where left open, in the colour of an assigned class."""
    dash = {
        "outlineStyle": "case when \"status\" = 'todo' then 'dash' "
        "when \"status\" = 'done' then 'solid' else 'dot' end"
    }
    strokes = {
        info.class_id: (
            outline(casing(info.color), 1.8, alpha=220),
            outline(info.color, 1.0, computed=dash),
        )
        for info in classes
    }
    rest = (outline("#000000", 1.6, alpha=200), outline(UNASSIGNED, 0.8, computed=dash))
    other = Category(value="", label="as the answers say", strokes=rest)
    return categorised("assigned_class", [*class_categories(classes, strokes), other])


def _answers(classes: Sequence[ClassInfo]) -> ET.Element:
    """Thin outlines that leave the image visible; what a person reclassed is filled."""
    changed = {"fillStyle": "if(\"assigned_class\" is null, 'no', 'solid')"}
    strokes = {
        info.class_id: (
            outline(casing(info.color), 1.1, alpha=200),
            fill(info.color, 110, width=0.6, computed=changed),
        )
        for info in classes
    }
    lost = Category(value="", label="no class", strokes=(outline("#ff00ff", 1.2),))
    by_class = class_categories(classes, strokes)
    return categorised('coalesce("assigned_class", "suggested_class")', [*by_class, lost])


def _undecided(_: Sequence[ClassInfo]) -> ET.Element:
    return categorised(
        "state",
        [
            Category(
                value="AMBIGUOUS",
                label="ambiguous: two classes fit",
                strokes=(fill("#ff7f00", 170, style="b_diagonal", width=0.3),),
            ),
            Category(
                value="NOVEL",
                label="novel: no class fits",
                strokes=(fill("#e6007e", 170, style="diagonal_x", width=0.3),),
            ),
        ],
    )


def _class_areas(classes: Sequence[ClassInfo]) -> ET.Element:
    """See-through areas; corrected ones have a dark edge."""
    edge = {
        "outlineStyle": "if(\"source\" = 'corrected', 'solid', 'no')",
        "outlineColor": "'#303030'",
    }
    strokes = {info.class_id: (fill(info.color, 90, width=0.3, computed=edge),) for info in classes}
    other = Category(value="", label="no class", strokes=(fill("#808080", 90),))
    return categorised("class_id", [*class_categories(classes, strokes), other])


def _conflicts(classes: Sequence[ClassInfo]) -> ET.Element:
    """Dashed outlines until somebody settles them; then filled with the class that holds."""
    strokes = {
        info.class_id: (
            outline(casing(info.color), 1.4, alpha=220),
            fill(info.color, 110, width=0.8),
        )
        for info in classes
    }
    dashed = {"outlineStyle": "'dash'"}
    open_ = (outline("#000000", 1.4, alpha=200), outline(UNASSIGNED, 0.7, computed=dashed))
    rest = Category(value="", label="not settled", strokes=open_)
    return categorised("assigned_class", [*class_categories(classes, strokes), rest])


_RENDERERS: dict[str, Callable[[Sequence[ClassInfo]], ET.Element]] = {
    schema.REGIONS: _regions,
    schema.ANSWERS: _answers,
    schema.UNDECIDED: _undecided,
    schema.CONFLICTS: _conflicts,
}
"""Colours by layer; every other layer shows classes as areas."""
