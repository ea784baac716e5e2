"""What every text for QGIS shares: its head, and characters that XML may hold."""

import re
import xml.etree.ElementTree as ET

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
QGIS_VERSION = "3.22.0"
"""The oldest QGIS that must read it."""

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(root: ET.Element) -> str:
    """The element as text, without characters that no XML reader takes (a name may hold them)."""
    return _ILLEGAL.sub("", ET.tostring(root, encoding="unicode"))


def color_text(color: str, alpha: int = 255) -> str:
    """QGIS's text of a #rrggbb colour; `alpha` runs from 0 to 255."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"{red},{green},{blue},{alpha}"
