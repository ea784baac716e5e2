"""The report in a real browser without a network: nothing is loaded, layers switch, phones fit."""

import json
from pathlib import Path
from typing import Any

import pytest
from page_factory import browse, chromium, find_chromium, shown, with_script
from PIL import Image
from report_factory import make_full_run, make_run

from geohsal.workflows.report import report

pytestmark = [
    pytest.mark.html,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium; apt-get install chromium"),
]

NAMES = (
    "</script><script>window.ran=1</script>",
    "\"'><img src=x onerror='window.ran=1'>",
    "W\u00e4lder & \u00c4cker",
    "x" * 80,
)
SIDE = """
const blocked = [], failed = [];
document.addEventListener("securitypolicyviolation", (e) => blocked.push(e.effectiveDirective));
addEventListener("error", (e) => failed.push(String(e.message || e.target.tagName)), true);
const tell = (name, value) => {
  const out = document.createElement("pre");
  out.id = `result-${name}`;
  out.textContent = typeof value === "string" ? value : JSON.stringify(value);
  document.body.append(out);
};
const map = document.querySelector(".map");
const find = (selector) => map.querySelector(selector);
const display = (name) => getComputedStyle(find(`.layer-${name}`)).display;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose class names mean mischief."""
    return report(make_full_run(tmp_path_factory.mktemp("page"), names=NAMES).run.path).out


def told(page: Path, script: str, tmp_path: Path) -> dict[str, Any]:
    """What a script says after it ran on the page."""
    script = (
        f"{SIDE}(async () => {{ {script} tell('blocked', blocked); tell('failed', failed); }})();"
    )
    copy = with_script(page, script, tmp_path / "with_script.html")
    return dict(shown(browse(copy, "--dump-dom", profile=tmp_path / "profile")))


def said_to_the_console(page: Path, tmp_path: Path) -> bool:
    """Whether a page, as it is, makes the browser's console say anything."""
    options = ("--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom")
    return ":CONSOLE" in chromium(page, *options, profile=tmp_path / "console")[1]


def test_it_loads_nothing_but_itself_and_says_nothing_to_the_console(
    page: Path, tmp_path: Path
) -> None:
    assert not said_to_the_console(page, tmp_path)
    found = told(
        page,
        """
        const loaded = performance.getEntriesByType("resource").map((e) => e.name);
        tell("loaded", loaded.filter((name) => !name.startsWith("data:")));
        tell("images", document.querySelectorAll("image").length);
        tell("ran", String(window.ran));
        """,
        tmp_path,
    )
    assert json.loads(found["loaded"]) == []
    assert json.loads(found["blocked"]) == json.loads(found["failed"]) == []
    assert int(found["images"]) == 2 * 4 + 4 * 3  # layers, and pictures of corrections
    assert found["ran"] == "undefined"


def test_the_test_would_notice_a_message_and_a_request(page: Path, tmp_path: Path) -> None:
    found = told(
        page,
        """
        const image = new Image(); image.src = "https://example.org/x.png";
        document.body.append(image);
        const inline = document.createElement("script");
        inline.textContent = "window.ran = 1"; document.body.append(inline);
        await new Promise((done) => setTimeout(done, 300));
        tell("ran", String(window.ran));
        """,
        tmp_path,
    )
    assert found["ran"] == "undefined"
    assert {"img-src", "script-src-elem"} <= set(json.loads(found["blocked"]))
    assert json.loads(found["failed"]) == ["IMG"]
    assert said_to_the_console(tmp_path / "with_script.html", tmp_path)


def test_layers_are_switched_each_for_itself(page: Path, tmp_path: Path) -> None:
    found = told(
        page,
        """
        const names = ["image", "classes", "error", "states", "queries"];
        const all = () => names.map(display);
        tell("first", all());
        const one = names.map((name) => {
          const box = find(`.show-${name}`);
          box.click(); const now = all(); box.click();
          return now;
        });
        tell("one", one); tell("last", all());
        const other = document.querySelectorAll(".map")[1].querySelector(".layer-classes");
        find(".show-classes").click();
        tell("other", getComputedStyle(other).display);
        """,
        tmp_path,
    )
    first = json.loads(found["first"])
    assert first == ["inline", "inline", "none", "none", "inline"]
    for place, state in enumerate(json.loads(found["one"])):
        changed = [number for number, value in enumerate(state) if value != first[number]]
        assert changed == [place]
    assert json.loads(found["last"]) == first
    assert found["other"] == "inline"


def test_classes_are_made_more_or_less_opaque(page: Path, tmp_path: Path) -> None:
    found = told(
        page,
        """
        const slider = find(".opacity"), layer = find(".layer-classes");
        const now = () => getComputedStyle(layer).opacity;
        tell("before", now());
        slider.value = 25; slider.dispatchEvent(new Event("input", {bubbles: true}));
        tell("after", now());
        """,
        tmp_path,
    )
    assert (found["before"], found["after"]) == ("0.6", "0.25")


def test_names_are_shown_as_they_are(page: Path, tmp_path: Path) -> None:
    found = told(
        page,
        """
        const heads = document.querySelectorAll(".classes tbody th");
        tell("names", [...heads].map((e) => e.textContent));
        tell("unnamed", [...document.querySelectorAll("input")].filter(
          (e) => !e.labels.length || !e.labels[0].textContent.trim()).length);
        tell("charts", [...document.querySelectorAll("svg.chart")].map(
          (e) => e.querySelector("title").textContent));
        tell("title", find("path.asked title").textContent);
        """,
        tmp_path,
    )
    assert json.loads(found["names"]) == list(NAMES)
    assert found["unnamed"] == "0"
    assert len(json.loads(found["charts"])) == 3
    assert "half of it <undecided>" in found["title"]


@pytest.mark.parametrize(("width", "full"), [(375, True), (375, False), (1280, True)])
def test_nothing_sticks_out_and_something_is_drawn(
    page: Path, tmp_path: Path, width: int, full: bool
) -> None:
    shown_page = page if full else report(make_run(tmp_path).run.path).out
    script = f"""{SIDE.split("const map")[0]}
    addEventListener("load", () => setTimeout(() => {{
      const page = frames[0].document, inside = page.documentElement;
      for (const part of page.querySelectorAll("details")) part.open = true;
      tell("widths", [inside.scrollWidth, inside.clientWidth]);
      const sizes = [...page.querySelectorAll("svg.chart text")].map(
        (e) => e.getBoundingClientRect().height);
      tell("text", sizes.length ? Math.min(...sizes) : 99);
    }}, 300));"""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{shown_page.as_uri()}" '
        f'style="width:{width}px;height:3600px;border:0"></iframe><script>{script}</script></body>'
    )
    profile = tmp_path / "profile"
    dom = browse(frame, "--dump-dom", "--allow-file-access-from-files", profile=profile)
    found = shown(dom)
    scrolled, seen = json.loads(found["widths"])
    assert scrolled <= seen <= width
    assert float(found["text"]) >= 9  # pixels, of the smallest text of a chart
    if full:
        picture = tmp_path / "page.png"
        browse(frame, f"--screenshot={picture}", f"--window-size={width},3600", profile=profile)
        colors = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
        assert colors is not None
        assert len(colors) > 1000
