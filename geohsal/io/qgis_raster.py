"""QML of rasters: class palettes, ramps for shares and the picture of a scene."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from geohsal.geo.scene import ClassInfo
from geohsal.geo.states import STATE_COLORS, PixelState
from geohsal.io.qgis_xml import DOCTYPE, QGIS_VERSION, color_text, xml_text

Palette = Sequence[tuple[int, str, str]]
"""(value, #rrggbb, label) of each legend entry."""

STATE_LABELS: Mapping[PixelState, str] = {
    PixelState.LABELLED: "labelled: a person has said it",
    PixelState.TRUSTED: "trusted: no error suspected",
    PixelState.CONFIRMED: "confirmed: refinement agrees",
    PixelState.CORRECTED: "corrected: refinement says another class",
    PixelState.AMBIGUOUS: "ambiguous: two classes fit",
    PixelState.NOVEL: "novel: no class fits",
}

ERROR_RAMP = ("#ffffcc", "#fed976", "#fd8d3c", "#e31a1c", "#800026")
"""From 0 to 1: pale where the map seems right, dark red where it seems wrong."""

CONFIDENCE_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""From 0 to 1: dark where the teacher hesitates."""


def class_palette(classes: Sequence[ClassInfo]) -> Palette:
    """Legend of a class raster."""
    return [(info.class_id, info.color, info.name) for info in classes]


def state_palette() -> Palette:
    """Legend of a state raster; NODATA is transparent and has no entry."""
    return [(int(state), STATE_COLORS[state], label) for state, label in STATE_LABELS.items()]


def paletted(palette: Palette) -> ET.Element:
    """Pipe that draws the codes of band 1."""
    pipe, renderer = _pipe("paletted", band="1")
    entries = ET.SubElement(renderer, "colorPalette")
    for value, color, label in palette:
        ET.SubElement(
            entries, "paletteEntry", value=str(value), color=color, alpha="255", label=label
        )
    return _finished(pipe)


def ramp(colors: Sequence[str]) -> ET.Element:
    """Pipe that draws band 1 from 0 to 1 in evenly spaced colours."""
    pipe, renderer = _pipe(
        "singlebandpseudocolor", band="1", classificationMin="0", classificationMax="1"
    )
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue="1",
        labelPrecision="2",
    )
    stops = [(number / (len(colors) - 1), color) for number, color in enumerate(colors)]
    gradient = ET.SubElement(shader, "colorramp", name="[source]", type="gradient")
    options = ET.SubElement(gradient, "Option", type="Map")
    between = [f"{at:g};{color_text(color)}" for at, color in stops[1:-1]]
    for name, value in (
        ("color1", color_text(colors[0])),
        ("color2", color_text(colors[-1])),
        ("discrete", "0"),
        ("rampType", "gradient"),
        ("stops", ":".join(between)),
    ):
        ET.SubElement(options, "Option", type="QString", name=name, value=value)
    for at, color in stops:
        ET.SubElement(shader, "item", value=f"{at:g}", color=color, alpha="255", label=f"{at:g}")
    return _finished(pipe)


def picture(bands: int) -> ET.Element:
    """Pipe that draws 8-bit bands as they are: three as a colour picture, one in grey."""
    if bands >= 3:
        pipe, _ = _pipe("multibandcolor", redBand="1", greenBand="2", blueBand="3")
    else:
        pipe, _ = _pipe("singlebandgray", grayBand="1", gradient="BlackToWhite")
    return _finished(pipe, zoomedOutResampler="bilinear")


def palette_qml(classes: Sequence[ClassInfo]) -> str:
    """Style of a class raster: band 1 by class colour and name.

    QGIS draws a raster of two bands as a colour composite unless a .qml of the same stem lies
    beside it; it does not ask the PAM sidecar.
    """
    root = ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")
    root.append(paletted(class_palette(classes)))
    return DOCTYPE + xml_text(root)


def _pipe(kind: str, **attributes: str) -> tuple[ET.Element, ET.Element]:
    pipe = ET.Element("pipe")
    shared = {"type": kind, "opacity": "1", "alphaBand": "-1"}
    return pipe, ET.SubElement(pipe, "rasterrenderer", shared | attributes)


def _finished(pipe: ET.Element, **resampler: str) -> ET.Element:
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", {"maxOversampling": "2"} | resampler)
    return pipe
