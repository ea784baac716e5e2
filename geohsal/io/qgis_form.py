"""QML of forms: drop-downs, names, defaults, constraints and the attribute table in QGIS."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from geohsal.geo.scene import ClassInfo
from geohsal.io.review_schema import STATUSES, Field, Layer

NULL_VALUE = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
"""What QGIS's value maps store for NULL: the entry that lets a reviewer undo a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A rule of one field: `hard` ones forbid saving, others only mark the field."""

    not_null: bool = False
    expression: str = ""
    message: str = ""
    hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a layer is filled in; every mapping goes by field name.

    `columns` come first in the attribute table, `widths` are in pixels.
    """

    null_label: str = "— not set —"
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    columns: Sequence[str] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    sort: str = ""
    preview: str = ""
    map_tip: str = ""


def form_elements(layer: Layer, form: Form, classes: Sequence[ClassInfo]) -> list[ET.Element]:
    """Everything of a layer's QML that belongs to its form and attribute table."""
    return [
        _widgets(layer, form, classes),
        _aliases(layer),
        _defaults(layer, form),
        *_constraints(layer, form),
        _table(layer, form),
        _text("editorlayout", "tablayout" if form.groups else "generatedlayout"),
        _groups(layer, form),
        _editable(layer),
        _text("previewExpression", form.preview),
        _text("mapTip", form.map_tip),
    ]


def _text(tag: str, text: str) -> ET.Element:
    element = ET.Element(tag)
    element.text = text
    return element


def _option(parent: ET.Element, kind: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, "Option", {"type": kind, **attributes})


def choices(item: Field, classes: Sequence[ClassInfo]) -> list[tuple[str, str]]:
    """(label, value) of a field whose values come from a list; empty for free fields."""
    if item.choices == "class":
        return [(info.name, str(info.class_id)) for info in classes]
    if item.choices == "status":
        return [(label, value) for value, label in STATUSES.items()]
    return []


def _widgets(layer: Layer, form: Form, classes: Sequence[ClassInfo]) -> ET.Element:
    element = ET.Element("fieldConfiguration")
    _widget(element, "fid", "Hidden")
    for item in layer.fields:
        listed = choices(item, classes)
        if listed:
            config = _widget(element, item.name, "ValueMap")
            entries = _option(config, "List", name="map")
            null = [(form.null_label, NULL_VALUE)] if item.choices == "class" else []
            for label, value in [*null, *listed]:
                _option(_option(entries, "Map"), "QString", name=label, value=value)
        elif item.kind == "bool":
            _widget(element, item.name, "CheckBox")
        else:  # a Range widget shows NULL for big integers
            config = _widget(element, item.name, "TextEdit")
            multiline = "true" if item.name == "notes" else "false"
            _option(config, "bool", name="IsMultiline", value=multiline)
            _option(config, "bool", name="UseHtml", value="false")
    return element


def _widget(parent: ET.Element, name: str, kind: str) -> ET.Element:
    item = ET.SubElement(parent, "field", name=name, configurationFlags="None")
    config = ET.SubElement(ET.SubElement(item, "editWidget", type=kind), "config")
    return _option(config, "Map")


def _aliases(layer: Layer) -> ET.Element:
    element = ET.Element("aliases")
    for number, item in enumerate(layer.fields, start=1):
        ET.SubElement(element, "alias", index=str(number), field=item.name, name=item.alias)
    return element


def _defaults(layer: Layer, form: Form) -> ET.Element:
    element = ET.Element("defaults")
    for item in layer.fields:
        if item.name in form.defaults:
            expression = form.defaults[item.name]
            attributes = {"expression": expression, "applyOnUpdate": "1"}
            ET.SubElement(element, "default", {"field": item.name, **attributes})
    return element


def _constraints(layer: Layer, form: Form) -> list[ET.Element]:
    rules, expressions = ET.Element("constraints"), ET.Element("constraintExpressions")
    for item in layer.fields:
        rule = form.constraints.get(item.name)
        if rule is None:
            continue
        strength = "1" if rule.hard else "2"
        ET.SubElement(
            rules,
            "constraint",
            field=item.name,
            constraints=str(rule.not_null + 4 * bool(rule.expression)),
            notnull_strength=strength if rule.not_null else "0",
            unique_strength="0",
            exp_strength=strength if rule.expression else "0",
        )
        ET.SubElement(
            expressions, "constraint", field=item.name, exp=rule.expression, desc=rule.message
        )
    return [rules, expressions]


def _table(layer: Layer, form: Form) -> ET.Element:
    element = ET.Element(
        "attributetableconfig",
        actionWidgetStyle="dropDown",
        sortOrder="0",
        sortExpression=form.sort,
    )
    columns = ET.SubElement(element, "columns")
    ET.SubElement(columns, "column", type="field", name="fid", hidden="1", width="-1")
    rest = (item.name for item in layer.fields if item.name not in form.columns)
    for name in (*form.columns, *rest):
        width = str(form.widths.get(name, -1))
        ET.SubElement(columns, "column", type="field", name=name, hidden="0", width=width)
    ET.SubElement(columns, "column", type="actions", hidden="1", width="-1")
    return element


def _groups(layer: Layer, form: Form) -> ET.Element:
    element = ET.Element("attributeEditorForm")
    index = {item.name: str(number) for number, item in enumerate(layer.fields, start=1)}
    for title, names in form.groups.items():
        group = ET.SubElement(
            element,
            "attributeEditorContainer",
            name=title,
            groupBox="1",
            columnCount="1" if any(layer.field(name).editable for name in names) else "2",
            showLabel="1",
            visibilityExpressionEnabled="0",
            visibilityExpression="",
        )
        for name in names:
            ET.SubElement(
                group, "attributeEditorField", name=name, index=index[name], showLabel="1"
            )
    return element


def _editable(layer: Layer) -> ET.Element:
    element = ET.Element("editable")
    ET.SubElement(element, "field", name="fid", editable="0")
    for item in layer.fields:
        ET.SubElement(element, "field", name=item.name, editable=str(int(item.editable)))
    return element
