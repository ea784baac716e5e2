"""The report of a run as one HTML file."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from geohsal.io.closed_page import closed_page
from geohsal.io.html_tree import html_text


def report_html(title: str, parts: Sequence[ET.Element]) -> str:
    """The page with its parts, header first; only its own script and style may run."""
    body = "\n".join(html_text(part) for part in parts)
    return closed_page("report_page", title=title, scheme="light", body=body)
