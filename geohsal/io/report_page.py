"""The report of a run as one HTML file that holds all it shows and may not load anything."""

import base64
import hashlib
import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib import resources

from geohsal.io.html_tree import html_text


def report_html(title: str, parts: Sequence[ET.Element]) -> str:
    """The page with its parts, header first; only its own script and style may run."""
    script, style = _asset("report_page.js"), _asset("report_page.css")
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; "
        f"style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    found = {
        "policy": policy,
        "title": html.escape(title),
        "style": style,
        "script": script,
        "body": "\n".join(html_text(part) for part in parts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda name: found[name[1]], _asset("report_page.html"))


def _asset(name: str) -> str:
    return resources.files("geohsal.io").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
