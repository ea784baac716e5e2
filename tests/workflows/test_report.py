"""`geohsal report`: one page per run, the same each time, whatever the run has come to."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_slurm import fake_slurm
from report_factory import Made, make_full_run, make_run, query_round, train_round
from shared_round import copy_of, reviewed
from tiny_run import geohsal

from geohsal.cli.html_report import report_lines
from geohsal.errors import DataError, RequestError, RunError
from geohsal.io.atomic import write_json
from geohsal.io.run import Run
from geohsal.workflows.report import ReportSummary, report
from geohsal.workflows.status import status, status_lines


class Links(HTMLParser):
    """Every address that a page names, and its elements with an id."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action", "data") and value:
                self.found.append(value)
            if name == "id" and value:
                self.ids.append(value)


def checked(path: Path) -> str:
    """The page, after a look at what it might load."""
    text = path.read_text("utf-8")
    links = Links()
    links.feed(text)
    assert all(link.startswith(("data:image/webp;base64,", "#")) for link in links.found)
    assert len(links.ids) == len(set(links.ids))
    assert {link[1:] for link in links.found if link.startswith("#")} <= set(links.ids)
    assert not re.search(r"\sstyle=", text)
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run with every record."""
    return make_full_run(tmp_path_factory.mktemp("report"))


def test_the_same_run_gives_the_same_page(made: Made, tmp_path: Path) -> None:
    first = report(made.run.path, tmp_path / "a.html")
    report(made.run.path, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert first.size_bytes == (tmp_path / "a.html").stat().st_size
    assert (first.rounds, first.scenes, first.left_out) == (2, ("north", "south"), ())
    assert (first.corrections, first.written) == (4, True)
    text = checked(tmp_path / "a.html")
    assert text.count('<details class="map"') == 2
    assert text.count('<div class="patch">') == 4


def test_the_page_of_a_submitted_run_does_not_change_with_the_queue(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"name": "train", "stage": "train", "job_id": "101", "tasks": 1}
    write_json(made.run.jobs, {"manifest": None, "folders": {}, "jobs": [job]})
    fake = fake_slurm(tmp_path / "bin", monkeypatch)
    page = tmp_path / "page.html"
    try:
        for state in ("PENDING", "RUNNING"):
            fake.says("squeue", f"echo '101|{state}|None'")
            assert report(made.run.path, page).written == (state == "PENDING")
            assert f"job train 101: {state.lower()}" in status_lines(status(made.run.path))
    finally:
        made.run.jobs.unlink()
    assert len(fake.calls("squeue")) == 2
    assert "train 101" not in page.read_text("utf-8")


def test_a_page_that_differs_is_replaced_only_if_asked(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(RequestError, match=r"page\.html: exists and differs; give --overwrite"):
        report(made.run.path, path)
    assert path.read_text() == "mine"
    assert report(made.run.path, path, overwrite=True).written
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_other_suffixes_and_folders_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"x\.pdf: must end in \.html, \.htm"):
        report(made.run.path, tmp_path / "x.pdf")
    (tmp_path / "y.html").mkdir()
    with pytest.raises(RequestError, match=r"y\.html: is a folder"):
        report(made.run.path, tmp_path / "y.html")
    with pytest.raises(RunError, match="not a run"):
        report(tmp_path)


def test_a_run_that_is_only_tiled_has_a_page(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    summary = report(made.run.path)
    assert summary.out == made.run.path / "report.html"
    text = checked(summary.out)
    assert "No round is queried yet, so there is no map." in text
    assert "No round is queried yet, so nothing was refined." in text


def test_a_local_scene_has_colours_and_no_scale(tmp_path: Path) -> None:
    made = make_full_run(tmp_path, local=True, scenes=("photo",))
    text = checked(report(made.run.path).out)
    assert "No scale: the scene has no position on Earth." in text
    assert "Map of photo" in text
    assert all(info.color in text for info in made.classes)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    names = ("</script><script>x()</script>", "\"'><img src=x>", "$x^2$ {{body}}", "森林 🌲")
    made = make_full_run(tmp_path, names=names)
    text = checked(report(made.run.path).out)
    assert text.count("<script") == text.count("</script>") == 1
    assert "<img" not in text
    assert "$x^2$ {{body}}" in text


def test_scenes_beyond_the_first_few_are_counted(tmp_path: Path) -> None:
    made = make_run(tmp_path, scenes=[f"s{number}" for number in range(9)])
    train_round(made)
    query_round(made, asked=["s7", "s8"])
    summary = report(made.run.path)
    assert summary.scenes == ("s7", "s8", "s0", "s1", "s2", "s3")
    assert summary.left_out == ("s4", "s5", "s6")
    assert "3 scenes not shown here: s4, s5, s6." in checked(summary.out)


def test_a_damaged_raster_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    made = make_run(tmp_path, scenes=("north",))
    train_round(made)
    query_round(made).raster("north", "error").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"north_error\.tif: cannot be read"):
        report(made.run.path)
    assert not list(made.run.path.glob("*report*"))


def test_the_command_says_where_the_page_is(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    said = geohsal("report", made.run.path, "-o", out).stdout
    assert said.startswith(f"wrote {out} (")
    found = json.loads(geohsal("report", made.run.path, "-o", out, "--json").stdout)
    assert (found["written"], found["scenes"]) == (False, ["north", "south"])
    assert report_lines(ReportSummary(**found | {"out": out})) == [
        f"nothing to do: {out} is up to date (0.1 MB)"
    ]


def test_a_real_round_has_every_section(shared_out: Run, tmp_path: Path) -> None:
    run = copy_of(shared_out, tmp_path)
    text = checked(report(run.path).out)
    assert "Round 0 is queried." in text
    geohsal("evaluate", run.path)
    geohsal("ingest", run.path, *reviewed(run))
    text = checked(report(run.path, overwrite=True).out)
    assert "Round 1 is tiled." in text
    assert "Confusion matrix, round 0" in text
    assert "Round 0, held against what reviewers said" in text
    assert "Classes that PLAR leaves alone in round 0" in text
    assert "Map of round 0" in text
