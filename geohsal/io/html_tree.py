"""HTML as a tree: text is escaped by the library that writes it, never by hand."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

Child = ET.Element | str | None

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FONT_SIZE = re.compile(r"([\d.]+)px")


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> ET.Element:
    """An element with these children, in order; text may hold anything.

    A trailing underscore of an attribute's name is dropped (`class_`), inner ones are hyphens.
    True gives an attribute without a value, None and False none at all.
    """
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            made.set(_name(name), "" if value is True else _clean(str(value)))
    add(made, children)
    return made


def add(parent: ET.Element, children: Iterable[Child]) -> None:
    """Append children to an element."""
    for child in children:
        if isinstance(child, str):
            _add_text(parent, _clean(child))
        elif child is not None:
            parent.append(child)


def table(
    head: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str | None = None
) -> ET.Element:
    """A table that scrolls inside its own box; the first cell of a row is its head."""
    body = [
        element(
            "tr",
            *(
                element("td" if column else "th", cell, scope=None if column else "row")
                for column, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    made = element("table", element("thead", top), element("tbody", *body), class_=class_)
    return element("div", made, class_="wide", tabindex=0)


def html_text(root: ET.Element) -> str:
    """The element as HTML."""
    return ET.tostring(root, encoding="unicode", method="html")


def inline_svg(text: str, *, prefix: str, title: str) -> ET.Element:
    """An SVG document as an element of a page: own ids, no style attributes, no fixed size.

    Style attributes become presentation attributes, so that a page may forbid styles of its parts;
    the page's font replaces the document's.

    Args:
        text: the document, of a program that is trusted.
        prefix: of its ids, one per document of a page.
        title: what a screen reader says.
    """
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for part in root.iter():
        part.tag = part.tag.rpartition("}")[2]
        part.attrib = _plain_attributes(part.attrib, prefix)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "chart")
    root.set("role", "img")
    root.insert(0, element("title", title))
    return root


def _plain_attributes(attributes: dict[str, str], prefix: str) -> dict[str, str]:
    plain: dict[str, str] = {}
    for key, value in attributes.items():
        name = key.rpartition("}")[2]
        if name == "style":
            plain |= _presentation(value)
        elif name != "font-family":
            plain[name] = f"{prefix}-{value}" if name == "id" else value
    if plain.get("href", "").startswith("#"):
        plain["href"] = f"#{prefix}-{plain['href'][1:]}"
    return {name: value.replace("url(#", f"url(#{prefix}-") for name, value in plain.items()}


def _presentation(style: str) -> dict[str, str]:
    """Declarations of a style attribute as attributes; of a font only its size."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = _FONT_SIZE.search(value)
            if size:
                found["font-size"] = size[1]
        elif name and name != "font-family":
            found[name] = value
    return found


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _clean(text: str) -> str:
    return _ILLEGAL.sub("", text)


def _add_text(parent: ET.Element, text: str) -> None:
    if len(parent):
        last = parent[-1]
        last.tail = (last.tail or "") + text
    else:
        parent.text = (parent.text or "") + text
