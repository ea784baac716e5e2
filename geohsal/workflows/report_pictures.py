"""The sections of a report that show rasters: the map of each scene, and what PLAR corrected."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from geohsal.geo.budget import counted
from geohsal.geo.scene import ClassInfo
from geohsal.geo.states import STATE_COLORS, PixelState
from geohsal.io.html_tree import element, table
from geohsal.workflows.report_facts import RoundFacts, RunFacts
from geohsal.workflows.report_map import LAYERS, Maps, Outline, SceneMap, error_stops
from geohsal.workflows.report_patches import SEARCH_PX, Correction
from geohsal.workflows.report_reasons import limit_rows, why_abstaining, why_corrected
from geohsal.workflows.report_sections import missing, quiet, section
from geohsal.workflows.report_tables import swatch

SHOWN_AT_FIRST = ("image", "classes", "queries")
OPACITY = 60
"""Of the classes, in per cent."""

MOST_OPEN = 2
"""Scenes whose map is unfolded."""

MOST_LEFT_OUT_NAMED = 12

STATE_WORDS: Mapping[PixelState, str] = {
    PixelState.LABELLED: "labelled",
    PixelState.TRUSTED: "trusted: the teacher's class stands",
    PixelState.CONFIRMED: "confirmed: suspect, but PLAR agrees with the teacher",
    PixelState.CORRECTED: "corrected: PLAR gave another class",
    PixelState.AMBIGUOUS: "ambiguous: PLAR cannot decide",
    PixelState.NOVEL: "novel: like no labelled class",
}


def map_section(facts: RunFacts, maps: Maps | None) -> ET.Element:
    """Maps of the newest round that has any."""
    mapped = facts.mapped
    if maps is None or mapped is None:
        return section("map", "Map", missing("No round is queried yet, so there is no map."))
    return section(
        "map",
        f"Map of round {mapped.index}",
        _legend(facts),
        *(_left_out(maps)),
        *(_scene(item, number, open_=number < MOST_OPEN) for number, item in enumerate(maps.shown)),
    )


def _left_out(maps: Maps) -> list[ET.Element]:
    if not maps.left_out:
        return []
    names = ", ".join(maps.left_out[:MOST_LEFT_OUT_NAMED])
    more = len(maps.left_out) - MOST_LEFT_OUT_NAMED
    words = f"{names} and {more:,} more" if more > 0 else names
    return [missing(f"{counted(len(maps.left_out), 'scene')} not shown here: {words}.")]


def _legend(facts: RunFacts) -> ET.Element:
    classes = [element("li", swatch(info.color), info.name) for info in facts.classes]
    states = [
        element("li", swatch(STATE_COLORS[state]), words) for state, words in STATE_WORDS.items()
    ]
    asked = [
        element("li", _line("asked"), "region asked for its worth"),
        element("li", _line("audit"), "region drawn at random (audit)"),
    ]
    return element(
        "details",
        element("summary", "Legend"),
        element("h3", "Classes (labelled, or as refined)"),
        element("ul", *classes, class_="key"),
        element("h3", "Error probability (0 where labelled)"),
        element("ul", element("li", "0", _ramp(), "1"), class_="key"),
        element("h3", "States of pixels"),
        element("ul", *states, class_="key"),
        element("h3", "Query regions"),
        element("ul", *asked, class_="key layer-queries"),
        open=True,
    )


def _line(kind: str) -> ET.Element:
    paths = [element("path", class_=name, d="M2 2H22V14H2Z") for name in ("casing", kind)]
    return element("svg", *paths, class_="swatch", viewBox="0 0 24 16", aria_hidden="true")


def _ramp() -> ET.Element:
    stops = [element("stop", offset=place, stop_color=color) for place, color in error_stops()]
    ramp = element("linearGradient", *stops, id="error-ramp")
    bar = element("rect", width=100, height=16, fill="url(#error-ramp)")
    return element(
        "svg", ramp, bar, class_="ramp", viewBox="0 0 100 16", preserveAspectRatio="none"
    )


def _scene(item: SceneMap, place: int, *, open_: bool) -> ET.Element:
    scene = item.scene
    names = [name for name in LAYERS if name in item.layers]
    head = (
        f"{scene.scene_id}: {scene.height:,} x {scene.width:,} px, "
        f"{counted(item.regions, 'region')}"
    )
    notes = [missing(f"Without a raster, and so not shown: {', '.join(item.absent)}.")]
    return element(
        "details",
        element("summary", head),
        *(notes if item.absent else []),
        _switches([*names, "queries"], place),
        element("div", _layers(item, names), class_="frame"),
        *_scale(item),
        class_="map",
        open=open_,
    )


def _switches(names: Sequence[str], place: int) -> ET.Element:
    boxes = [
        element(
            "label",
            element(
                "input",
                type="checkbox",
                class_=f"show-{name}",
                checked=name in SHOWN_AT_FIRST,
                autocomplete="off",
            ),
            name,
        )
        for name in names
    ]
    if "classes" in names:
        slider = element(
            "input", type="range", class_="opacity", min=0, max=100, value=OPACITY,
            autocomplete="off", id=f"opacity-{place}",
        )  # fmt: skip
        boxes.append(element("label", "opacity of classes", slider))
    return element("div", *boxes, class_="layers", role="group", aria_label="Layers")


def _layers(item: SceneMap, names: Sequence[str]) -> ET.Element:
    height, width = item.scene.shape
    images = [
        element(
            "image",
            class_=f"layer-{name}",
            href=item.layers[name],
            width=width,
            height=height,
            preserveAspectRatio="none",
            opacity=OPACITY / 100 if name == "classes" else None,
        )
        for name in names
    ]
    outlines = [part for outline in item.outlines for part in _outline(outline)]
    return element(
        "svg",
        element("title", f"Map of {item.scene.scene_id}"),
        *images,
        element("g", *outlines, class_="layer-queries"),
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def _outline(item: Outline) -> list[ET.Element]:
    title = None if item.title is None else element("title", item.title)
    return [
        element("path", d=item.path, class_="casing"),
        element("path", title, d=item.path, class_="audit" if item.audit else "asked"),
    ]


def _scale(item: SceneMap) -> list[ET.Element]:
    shrunk = f"; 1 shown pixel is about {item.shrink:.1f} x {item.shrink:.1f}"
    note = shrunk if item.shrink > 1 else ""
    if item.bar is None:
        return [quiet(f"No scale: the scene has no position on Earth{note}.")]
    bar = element("rect", width=100 * item.bar.share, height=4)
    metres = item.bar.metres
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    return [
        element("svg", bar, class_="bar", viewBox="0 0 100 4", preserveAspectRatio="none"),
        quiet(f"The bar is {text} on the ground{note}."),
    ]


def corrections_section(
    facts: RunFacts, maps: Maps | None, patches: Sequence[Correction] | None
) -> ET.Element:
    """Examples of corrections with why, and the classes that refinement leaves alone."""
    mapped = facts.mapped
    title = "What PLAR corrected"
    if maps is None or patches is None or mapped is None:
        words = "No round is queried yet, so nothing was refined."
        return section("corrections", title, missing(words))
    parts = [
        _patch(item, facts.classes, why_corrected(item, facts.classes, mapped.passport))
        for item in patches
    ]
    if not parts:
        words = f"In round {mapped.index} no pixel of the scenes shown was corrected."
        parts = [missing(words)]
    else:
        parts.insert(0, quiet(_how_found(maps)))
        class_ids = sorted({item.refined for item in patches})
        rows = limit_rows(class_ids, facts.classes, mapped.passport)
        parts.append(element("h3", "Where the limits of these corrections come from"))
        parts.append(table(("limit", "value", "from"), rows, class_="words"))
    return section("corrections", title, *parts, *_abstaining(facts, mapped))


def _how_found(maps: Maps) -> str:
    words = "The largest patches of each class in turn, of the scenes shown."
    if all(max(item.scene.shape) <= SEARCH_PX for item in maps.shown):
        return words
    return (
        f"{words} Scenes of more than {SEARCH_PX:,} px are searched at a smaller scale, where "
        "small patches can be missed."
    )


def _patch(item: Correction, classes: Sequence[ClassInfo], why: str) -> ET.Element:
    views = [
        ("image", item.image),
        ("before (teacher)", item.before),
        ("after (refined)", item.after),
    ]
    area = f"{item.pixels:,} px and more" if item.cut else counted(item.pixels, "pixel")
    head = (
        f"{classes[item.teacher].name} \u2192 {classes[item.refined].name}: {area} in "
        f"{item.scene_id}, row {item.row:,}, column {item.col:,}"
    )
    return element(
        "div",
        element("h3", head),
        element("p", why),
        element("div", *(_view(item, name, uri) for name, uri in views if uri), class_="views"),
        class_="patch",
    )


def _view(item: Correction, name: str, uri: str) -> ET.Element:
    picture = element(
        "svg",
        element("title", name),
        element("image", href=uri, width=item.width, height=item.height),
        element("path", d=item.outline, class_="rim") if uri == item.image else None,
        element("path", d=item.outline, class_="edge"),
        viewBox=f"0 0 {item.width} {item.height}",
        role="img",
        class_="sharp",
    )
    return element("figure", picture, element("figcaption", name))


def _abstaining(facts: RunFacts, mapped: RoundFacts) -> list[ET.Element]:
    head = element("h3", f"Classes that PLAR leaves alone in round {mapped.index}")
    found = why_abstaining(facts.classes, mapped.passport)
    if found is None:
        return [head, missing("model.json of the round does not say.")]
    if not found:
        return [head, element("p", "None.")]
    rows = found.items()
    return [head, table(("class", "why"), rows, class_="words")]
