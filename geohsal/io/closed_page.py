"""One HTML file that holds all it shows and may not load anything."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib import resources


def closed_page(name: str, *, title: str, scheme: str, body: str) -> str:
    """A page of which only its own script and style may run.

    Args:
        name: of script and style, which lie here as `name`.js and `name`.css.
        title: plain text.
        scheme: the colour schemes that the style knows.
        body: HTML.
    """
    script, style = _asset(f"{name}.js"), _asset(f"{name}.css")
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; "
        f"style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(title),
        "scheme": scheme,
        "style": style,
        "script": script,
        "body": body,
    }
    return filled("closed_page.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template that lies here with its {{names}} replaced; what is put in is not looked at."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset(template))


def _asset(name: str) -> str:
    return resources.files("geohsal.io").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
