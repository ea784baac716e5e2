"""The review page in a real browser, by its own key handlers; without a network."""

import json
from pathlib import Path
from typing import Any

import pytest
from page_factory import PageRound, browse, find_chromium, page_round, shown, with_script
from PIL import Image

from geohsal.io.decisions_csv import read_decisions, read_decisions_origin

pytestmark = [
    pytest.mark.html,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium; apt-get install chromium"),
]

SIDE = """
const blocked = [];
document.addEventListener("securitypolicyviolation", (e) => blocked.push(e.effectiveDirective));
const key = (key, target = document.body) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const type = (id, text) => {
  const box = document.getElementById(id);
  box.focus(); box.value = text;
  box.dispatchEvent(new Event("input", {bubbles: true}));
};
const text = (id) => document.getElementById(id).textContent;
const tell = (name, value) => {
  const out = document.createElement("pre");
  out.id = `result-${name}`;
  out.textContent = typeof value === "string" ? value : JSON.stringify(value);
  document.body.append(out);
};
const saved = async () => {
  let blob = null;
  const real = URL.createObjectURL;
  URL.createObjectURL = (found) => { blob = found; return real(found); };
  document.getElementById("download").click();
  URL.createObjectURL = real;
  return blob.text();
};
"""


def told(made: PageRound, script: str, tmp_path: Path, **changes: object) -> dict[str, Any]:
    """What a script says after it ran on the page."""
    page = made.write(**changes)  # type: ignore[arg-type]
    script = f"{SIDE}(async () => {{ {script} tell('blocked', blocked); }})();"
    copy = with_script(page, script, tmp_path / "with_script.html")
    return dict(shown(browse(copy, "--dump-dom", profile=tmp_path / "profile")))


def test_keys_decide_and_the_csv_says_so(tmp_path: Path) -> None:
    made = page_round(tmp_path)
    found = told(
        made,
        """
        type("reviewer", "Ann Müller, =1");
        key("Enter"); key("3"); key("?");
        type("notes", 'doubtful, "very"\\nsee map'); document.activeElement.blur();
        key("0"); key("Enter"); key("Backspace");
        key("/"); type("search", "ROAD"); key("Enter", document.getElementById("search"));
        tell("where", text("region")); tell("counts", text("counts"));
        tell("said", text("verdict"));
        key("ArrowLeft"); tell("left", text("region"));
        key("ArrowDown"); tell("todo", text("region"));
        tell("csv", await saved());
        """,
        tmp_path,
    )
    assert found["counts"] == "5 of 6 regions decided"
    assert found["where"] == "Region 6 of 6"
    assert found["said"] == "Region 5: Whole region: road. 1 to do."
    assert found["left"] == "Region 5 of 6"
    assert found["todo"] == "Region 6 of 6"
    assert json.loads(found["blocked"]) == []
    path = tmp_path / "decisions.csv"
    path.write_text(found["csv"], "utf-8", newline="")
    decisions = read_decisions(path)
    ids = [region.region_id for region in made.regions]
    assert [(d.region_id, d.status, d.assigned_class) for d in decisions] == [
        (ids[0], "done", None),
        (ids[1], "done", 2),
        (ids[2], "unsure", None),
        (ids[3], "skipped", None),
        (ids[4], "done", 5),
    ]
    assert decisions[3].notes == 'doubtful, "very"\nsee map'
    assert {d.reviewed_by for d in decisions} == {"Ann Müller, =1"}
    assert all((d.reviewed_ms or 0) > 1.7e12 for d in decisions)
    origin = read_decisions_origin(path)
    assert (origin.round, origin.request) == (0, "0123456789abcdef" * 4)


def test_a_reload_loses_nothing(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path),
        """
        if (!sessionStorage.getItem("again")) {
          sessionStorage.setItem("again", "yes");
          type("reviewer", "Ann"); document.activeElement.blur();
          key("1"); key("?"); type("notes", "later");
          location.reload();
          return;
        }
        tell("counts", text("counts")); tell("where", text("region"));
        tell("name", document.getElementById("reviewer").value);
        tell("notes", document.getElementById("notes").value);
        key("Backspace"); tell("undone", text("counts")); tell("back", text("region"));
        """,
        tmp_path,
    )
    assert found["counts"] == "2 of 6 regions decided"
    assert (found["where"], found["name"], found["notes"]) == ("Region 3 of 6", "Ann", "later")
    assert (found["undone"], found["back"]) == ("1 of 6 regions decided", "Region 2 of 6")


def test_what_is_kept_belongs_to_one_query(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path),
        """
        localStorage.clear(); key("Enter"); tell("stores", Object.keys(localStorage));
        """,
        tmp_path,
    )
    request = "0123456789abcdef" * 4
    assert json.loads(found["stores"]) == [f"geohsal:my-town:0:{request}:queries_r000.gpkg"]


def test_a_key_held_down_decides_once(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path),
        """
        const held = (key) => document.body.dispatchEvent(
          new KeyboardEvent("keydown", {key, repeat: true, bubbles: true, cancelable: true}));
        key("Enter"); held("Enter"); held("1"); tell("counts", text("counts"));
        held("ArrowRight"); tell("where", text("region"));
        """,
        tmp_path,
    )
    assert (found["counts"], found["where"]) == ("1 of 6 regions decided", "Region 3 of 6")


def test_nothing_can_be_loaded(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path),
        """
        const image = new Image(); image.src = "https://example.org/x.png";
        document.body.append(image);
        let failed = ""; try { await fetch("https://example.org/"); } catch { failed = "yes"; }
        const inline = document.createElement("script");
        inline.textContent = "window.ran = 1"; document.body.append(inline);
        tell("failed", failed); tell("ran", String(window.ran));
        await new Promise((done) => setTimeout(done, 300));
        """,
        tmp_path,
    )
    assert (found["failed"], found["ran"]) == ("yes", "undefined")
    assert {"img-src", "connect-src", "script-src-elem"} <= set(json.loads(found["blocked"]))


def test_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    names = (
        "</script><script>window.ran=1</script>",
        "\"'><img src=x onerror='window.ran=1'>",
        "Wälder & Äcker \U0001f332",
        "=cmd()",
    )
    found = told(
        page_round(tmp_path, names=names, reason=names[1]),
        """
        tell("names", [...document.querySelectorAll("#classes .name")].map((e) => e.textContent));
        tell("ran", String(window.ran)); tell("images", document.images.length);
        key("4"); tell("csv", await saved());
        """,
        tmp_path,
    )
    assert json.loads(found["names"]) == list(names)
    assert (found["ran"], found["images"]) == ("undefined", "0")
    assert ",'=cmd()," in found["csv"]
    assert json.loads(found["blocked"]) == []


def test_two_hundred_classes_by_search_and_letters(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path, names=[f"class {i}" for i in range(200)]),
        """
        const keys = [...document.querySelectorAll("#classes kbd")].map((e) => e.textContent);
        tell("keys", keys.join(""));
        key("z"); key("ArrowLeft"); tell("letter", text("verdict"));
        key("ArrowRight"); key("/"); type("search", "class 199");
        tell("shown", document.querySelectorAll("#classes button").length);
        key("Enter", document.getElementById("search"));
        key("ArrowLeft"); tell("search", text("verdict"));
        const unnamed = [...document.querySelectorAll("button, input, textarea")].filter(
          (e) => !e.textContent.trim() && !(e.labels && e.labels.length));
        tell("unnamed", unnamed.length);
        """,
        tmp_path,
    )
    assert found["keys"] == "123456789abcdefghijklmnopqrstuvwxyz"
    assert found["letter"] == "Whole region: class 34"
    assert (found["shown"], found["search"]) == ("1", "Whole region: class 199")
    assert found["unnamed"] == "0"


def test_suggestions_can_be_hidden_and_the_region_enlarged(tmp_path: Path) -> None:
    found = told(
        page_round(tmp_path),
        """
        const patches = () => document.querySelectorAll("#chip .patch").length;
        tell("before", patches()); key(" "); tell("hidden", patches());
        const box = () => document.getElementById("chip").getAttribute("viewBox");
        tell("wide", box()); key("+"); tell("close", box());
        """,
        tmp_path,
    )
    assert int(found["before"]) > 0
    assert found["hidden"] == "0"
    assert (found["wide"], found["close"]) == ("0 0 80 80", "22 22 36 36")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_something_is_drawn(tmp_path: Path, width: int) -> None:
    page = page_round(tmp_path, names=[f"class {i} " + "x" * 40 for i in range(30)]).write()
    script = f"""{SIDE}
    addEventListener("load", () => setTimeout(() => {{
      const inside = frames[0].document.documentElement;
      tell("widths", [inside.scrollWidth, inside.clientWidth]);
    }}, 300));"""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page.as_uri()}" style="width:{width}px;height:844px;'
        f'border:0"></iframe><script>{script}</script></body>'
    )
    profile = tmp_path / "profile"
    dom = browse(frame, "--dump-dom", "--allow-file-access-from-files", profile=profile)
    scrolled, seen = json.loads(shown(dom)["widths"])
    assert scrolled <= seen <= width
    picture = tmp_path / "page.png"
    browse(frame, f"--screenshot={picture}", f"--window-size={width},844", profile=profile)
    colors = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
    assert colors is not None
    assert len(colors) > 1000
