"""The report's frame: only its own script and style may run, and nothing can be loaded."""

import base64
import hashlib
import re

from geohsal.io.html_tree import element
from geohsal.io.report_page import report_html


def test_the_policy_names_the_very_script_and_style() -> None:
    text = report_html("t", [element("p", "x")])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    for tag in ("script", "style"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; img-src data:;")


def test_parts_follow_each_other_and_the_title_is_escaped() -> None:
    text = report_html("</title><b>", [element("p", "{{style}}"), element("i", "two")])
    assert "<title>&lt;/title&gt;&lt;b&gt;</title>" in text
    assert "<p>{{style}}</p>\n<i>two</i>" in text
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text


def test_the_frame_names_no_address() -> None:
    assert "http:" not in report_html("t", [])
    assert "https:" not in report_html("t", [])
