"""Text cannot break out of its element, and charts keep to a page that forbids styles."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.io.html_tree import element, html_text, inline_svg, table

EVIL = "</p><script>alert(1)</script>&\"'"
CHART = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt"
 height="5pt" viewBox="0 0 10 5" version="1.1">
 <metadata>who</metadata>
 <defs><style type="text/css">*{fill: red}</style><path id="m1" d="M0 0"/></defs>
 <g id="axes" clip-path="url(#p1)">
  <use xlink:href="#m1" style="fill: #abc; stroke: none"/>
  <text style="font: 700 11px 'DejaVu Sans'; text-anchor: middle">&lt;b&gt;</text>
 </g>
</svg>"""


class Reader(HTMLParser):
    """What a reader of HTML sees, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


def test_text_and_attributes_are_escaped() -> None:
    text = html_text(element("p", EVIL, element("b", EVIL), EVIL, title=EVIL, class_="x"))
    reader = Reader()
    reader.feed(text)
    assert reader.seen == [
        ("p", {"title": EVIL, "class": "x"}), EVIL, ("b", {}), EVIL, "/b", EVIL, "/p",
    ]  # fmt: skip


def test_children_keep_their_order_and_nothing_is_left_out() -> None:
    made = element("p", "a", element("i", "b"), "c", None, "d", element("br"), "e")
    assert html_text(made) == "<p>a<i>b</i>cd<br>e</p>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, '<input checked="">'),
        (False, "<input>"),
        (None, "<input>"),
        (0, '<input checked="0">'),
    ],
)
def test_an_attribute_may_have_no_value_or_not_be_there(value: object, text: str) -> None:
    assert html_text(element("input", checked=value)) == text  # type: ignore[arg-type]


def test_names_of_attributes_may_hold_hyphens() -> None:
    assert html_text(element("p", aria_label="x")) == '<p aria-label="x"></p>'


@given(st.text())
def test_any_text_is_text_again_for_a_reader(text: str) -> None:
    reader = Reader()
    reader.feed(html_text(element("p", text, "!", title=text)))
    legal = "".join(c for c in text if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or c >= "\ue000")
    legal = legal.replace("\ufffe", "").replace("\uffff", "")
    assert reader.seen == [("p", {"title": legal}), f"{legal}!", "/p"]


def test_a_table_has_heads_for_rows_and_columns() -> None:
    text = html_text(table(("", "n"), [("a<", "1"), ("b", element("i", "2"))], class_="t"))
    assert '<th scope="row">a&lt;</th><td>1</td>' in text
    assert "<td><i>2</i></td>" in text
    assert text.count('scope="col"') == 2


def test_a_chart_needs_no_style_and_its_ids_are_its_own() -> None:
    chart = inline_svg(CHART, prefix="one", title="A <chart>")
    text = html_text(chart)
    assert "style" not in text
    assert "who" not in text
    assert chart.get("viewBox") == "0 0 10 5"
    assert {"width", "height"}.isdisjoint(chart.attrib)
    assert '<path id="one-m1"' in text
    assert '<use href="#one-m1" fill="#abc" stroke="none">' in text
    assert 'clip-path="url(#one-p1)"' in text
    assert '<text font-size="11" text-anchor="middle">&lt;b&gt;</text>' in text
    assert "<title>A &lt;chart&gt;</title>" in text
