"""QML of colours, labels and hatches: what a layer looks like in QGIS."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from geohsal.geo.scene import ClassInfo
from geohsal.io.qgis_xml import color_text

Properties = Mapping[str, str]
EXPRESSION = "3"
"""QGIS's code for a property that an expression computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """One drawing pass of a polygon; `computed` maps a QML property to a QGIS expression."""

    properties: Properties
    computed: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One legend entry; an empty `value` catches everything else."""

    value: str
    label: str
    strokes: tuple[Stroke, ...]


def casing(color: str) -> str:
    """Black or white, whichever sets the colour off: outlines stay visible on any image."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def outline(color: str, width: float, *, alpha: int = 255, computed: Properties = {}) -> Stroke:  # noqa: B006
    """A line of `width` millimetres around an unfilled polygon."""
    return Stroke(
        properties={
            "color": color_text(color, 0),
            "style": "no",
            "outline_color": color_text(color, alpha),
            "outline_style": "solid",
            "outline_width": f"{width}",
            "outline_width_unit": "MM",
            "joinstyle": "miter",
        },
        computed=computed,
    )


def fill(
    color: str,
    alpha: int,
    *,
    style: str = "solid",
    width: float = 0.0,
    computed: Properties = {},  # noqa: B006
) -> Stroke:
    """A filled or hatched polygon with a border of its colour (`width` 0: none)."""
    return Stroke(
        properties={
            "color": color_text(color, alpha),
            "style": style,
            "outline_color": color_text(color),
            "outline_style": "solid" if width else "no",
            "outline_width": f"{width}",
            "outline_width_unit": "MM",
            "joinstyle": "miter",
        },
        computed=computed,
    )


def class_categories(
    classes: Sequence[ClassInfo], strokes: Mapping[int, tuple[Stroke, ...]]
) -> list[Category]:
    """One category per class, by class id."""
    return [
        Category(value=str(info.class_id), label=info.name, strokes=strokes[info.class_id])
        for info in classes
    ]


def categorised(expression: str, categories: Sequence[Category]) -> ET.Element:
    """Renderer that colours by the value of a field or expression."""
    renderer = ET.Element(
        "renderer-v2",
        type="categorizedSymbol",
        attr=expression,
        forceraster="0",
        symbollevels="0",
        enableorderby="0",
    )
    listed = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, category in enumerate(categories):
        ET.SubElement(
            listed,
            "category",
            render="true",
            symbol=str(number),
            value=category.value,
            label=category.label,
        )
        symbols.append(_symbol(number, category.strokes))
    ET.SubElement(renderer, "rotation")
    ET.SubElement(renderer, "sizescale")
    return renderer


def _symbol(number: int, strokes: Sequence[Stroke]) -> ET.Element:
    symbol = ET.Element(
        "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1", force_rhr="0"
    )
    for stroke in strokes:
        layer = ET.SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        options = ET.SubElement(layer, "Option", type="Map")
        for name, value in stroke.properties.items():
            ET.SubElement(options, "Option", type="QString", name=name, value=value)
        if stroke.computed:
            layer.append(_computed(stroke.computed))
    return symbol


def _computed(computed: Properties) -> ET.Element:
    element = ET.Element("data_defined_properties")
    collection = ET.SubElement(element, "Option", type="Map")
    ET.SubElement(collection, "Option", type="QString", name="name", value="")
    listed = ET.SubElement(collection, "Option", type="Map", name="properties")
    for name, expression in computed.items():
        entry = ET.SubElement(listed, "Option", type="Map", name=name)
        ET.SubElement(entry, "Option", type="bool", name="active", value="true")
        ET.SubElement(entry, "Option", type="QString", name="expression", value=expression)
        ET.SubElement(entry, "Option", type="int", name="type", value=EXPRESSION)
    ET.SubElement(collection, "Option", type="QString", name="type", value="collection")
    return element


def corner_labels(expression: str) -> ET.Element:
    """Bold text with a white halo above the top left corner, never left out: hides no pixel."""
    return _labels(
        expression,
        font={"namedStyle": "Bold", "fontWeight": "75", "fontSize": "12"},
        placement={
            "placement": "1",
            "quadOffset": "2",
            "geometryGeneratorEnabled": "1",
            "geometryGenerator": "make_point(x_min($geometry), y_max($geometry))",
            "geometryGeneratorType": "PointGeometry",
            "priority": "10",
        },
        rendering={"displayAll": "1"},
    )


def inside_labels(expression: str) -> ET.Element:
    """Small text with a white halo, only where it fits into its polygon."""
    return _labels(
        expression,
        font={"namedStyle": "Regular", "fontWeight": "50", "fontSize": "8"},
        placement={"placement": "5", "fitInPolygonOnly": "1", "priority": "3"},
        rendering={"fitInPolygonOnly": "1"},
    )


def _labels(
    expression: str, *, font: Properties, placement: Properties, rendering: Properties
) -> ET.Element:
    labeling = ET.Element("labeling", type="simple")
    settings = ET.SubElement(labeling, "settings", calloutType="simple")
    style = ET.SubElement(
        settings,
        "text-style",
        {
            "fieldName": expression,
            "isExpression": "1",
            "fontFamily": "Sans Serif",
            "fontSizeUnit": "Point",
            "textColor": "20,20,20,255",
            "textOpacity": "1",
            **font,
        },
    )
    ET.SubElement(
        style,
        "text-buffer",
        bufferDraw="1",
        bufferSize="0.8",
        bufferSizeUnits="MM",
        bufferColor="255,255,255,255",
        bufferOpacity="1",
    )
    ET.SubElement(settings, "text-format")
    ET.SubElement(settings, "placement", dict(placement))
    ET.SubElement(settings, "rendering", {"drawLabels": "1", "obstacle": "0", **rendering})
    return labeling
