"""The review page as it is written; what a browser makes of it is tested in tests/html."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from page_factory import classes_named, page_round
from PIL import Image

from geohsal.errors import DataError
from geohsal.io.cog import write_cog
from geohsal.io.review_page import CHIP_PX

HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "<!-- & {{script}} {{data}} \\u003c ]]>",
    "Wälder, Öde & Äcker \U0001f332\u2028",
    "=HYPERLINK(1)",
)


class Reader(HTMLParser):
    """Start tags with their attributes, and the texts of scripts and styles."""

    CDATA_CONTENT_ELEMENTS = ("script", "style")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside][-1] += data

    def content(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.texts["script"][0])
        return found


def chips(content: dict) -> list[Image.Image]:  # type: ignore[type-arg]
    return [
        Image.open(io.BytesIO(base64.b64decode(region["image"].partition(",")[2])))
        for region in content["regions"]
    ]


def test_it_holds_all_it_needs_and_may_load_nothing(tmp_path: Path) -> None:
    page = page_round(tmp_path).write()
    assert page.name == "queries_r000.html"
    read = Reader(page.read_text("utf-8"))
    metas = [attributes for tag, attributes in read.tags if tag == "meta"]
    [policy] = [m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind, text in (("script", read.texts["script"][1]), ("style", read.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert not {"src", "href", "style", "onclick", "action"} & {
        name for _, attributes in read.tags for name in attributes
    }
    assert {tag for tag, _ in read.tags}.isdisjoint({"link", "iframe", "object", "base", "form"})


def test_it_says_what_the_review_file_says(tmp_path: Path) -> None:
    made = page_round(tmp_path)
    content = Reader(made.write().read_text("utf-8")).content()
    regions = content["regions"]
    assert isinstance(regions, list)
    assert [region["id"] for region in regions] == [r.region_id for r in made.regions]
    assert [region["rank"] for region in regions] == [1, 2, 3, 4, 5, 6]
    assert regions[0]["bands"] == "red, green, blue"
    for region, asked in zip(regions, made.regions, strict=True):
        assert sum(patch["pixels"] for patch in region["patches"]) == asked.pixels
        assert region["reason"] == asked.reason
    # the outline leaves out what is not asked: an L of six corners
    assert len(re.findall("[ML]", regions[1]["outline"])) == 6
    assert (content["round"], content["file"]) == (0, "queries_r000.gpkg")


def test_names_do_nothing(tmp_path: Path) -> None:
    made = page_round(tmp_path, names=HOSTILE, reason=HOSTILE[0])
    page = made.write(run=HOSTILE[0])
    text = page.read_text("utf-8")
    read = Reader(text)
    names = [entry["name"] for entry in read.content()["classes"]]  # type: ignore[attr-defined]
    assert names == list(HOSTILE)
    assert text.lower().count("<script") == text.lower().count("</script") == 2
    assert "<img" not in text
    assert "\u2028" not in text
    plain = Reader(page_round(tmp_path / "plain").write().read_text("utf-8"))
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in plain.tags]


def test_two_hundred_regions_are_a_few_megabytes(tmp_path: Path) -> None:
    made = page_round(tmp_path, count=200, names=[f"class {i}" for i in range(200)])
    assert made.write().stat().st_size < 4e6


def test_pictures_are_bounded_and_small_ones_sharp(tmp_path: Path) -> None:
    small = Reader(page_round(tmp_path / "s", count=1).write().read_text("utf-8")).content()
    large = Reader(
        page_round(tmp_path / "l", count=1, cell=400).write().read_text("utf-8")
    ).content()
    [chip] = chips(small)
    assert chip.size == (160, 160)
    assert max(chips(large)[0].size) == CHIP_PX
    assert np.asarray(chip.convert("RGBA"))[:4, :4, 3].max() == 0, "no data is transparent"


def test_a_page_without_its_picture_is_an_error(tmp_path: Path) -> None:
    made = page_round(tmp_path)
    made.round.raster("north", "view").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"north_view\.tif: cannot be read .* --overwrite"):
        made.write()


def test_a_grey_picture_and_a_local_scene_will_do(tmp_path: Path) -> None:
    made = page_round(tmp_path, count=1)
    grey = np.full((1, *made.scene.shape), 90, np.uint8)
    write_cog(
        made.round.raster("north", "view"), grey, scene=made.scene, nodata=0, band_names=("pan",)
    )
    regions = [replace(made.regions[0], area_m2=None)]
    page = made.write(regions=regions, classes=classes_named(["a", *"bcdefgh"]))
    [region] = Reader(page.read_text("utf-8")).content()["regions"]  # type: ignore[misc]
    assert (region["bands"], region["area"]) == ("pan", None)
