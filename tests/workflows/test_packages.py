"""A round shared out among several people, through the real command line."""

import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
from review_factory import person, tick
from shared_round import burnt, copy_of, follows_the_ledger, packages, reviewed
from tiny_run import geohsal

from geohsal.errors import ReviewError, RunError
from geohsal.io.atomic import read_json, write_json
from geohsal.io.decisions_csv import COLUMNS
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run
from geohsal.workflows.ingest import ingest
from geohsal.workflows.ingest_summary import IngestSummary
from geohsal.workflows.query import query
from geohsal.workflows.status import status, status_lines


@pytest.fixture
def run(shared_out: Run, tmp_path: Path) -> Run:
    return copy_of(shared_out, tmp_path)


def test_packages_go_out_and_come_back(run: Run) -> None:
    first, second = packages(run)
    regions = {region.region_id: region for region in read_regions(run.round(0).regions)}
    both = first & second
    assert first | second == set(regions)
    assert len(both) == 2
    said = geohsal("ingest", run.path, *reviewed(run))
    assert "kappa 0." in said.stdout
    assert "agreement of r1.gpkg (oracle 1) and r2.gpkg (oracle 2)" in said.stdout
    assert "to settle: " in said.stdout
    record = read_json(run.round(0).ingest_json)
    assert record["done"] == len(regions)
    (agreement,) = record["agreement"]
    assert agreement["regions"] == 2
    assert agreement["pixels"] - agreement["agreed"] == record["conflict_pixels"] > 0
    labels = burnt(run)
    for name, region in regions.items():
        known = labels[name][region.mask] != 255
        assert known.all() == (name not in record["conflicts"])
    assert follows_the_ledger(run)
    entries = active_entries(read_ledger(run.ledger))
    assert sum(entry.pixels for entry in entries) == sum(r.pixels for r in regions.values())
    minutes = {entry.region_id: entry.seconds / 60 for entry in entries}
    for name, region in regions.items():
        assert minutes[name] == pytest.approx(region.cost_min * (2 if name in both else 1))
    again = geohsal("ingest", run.path, *reviewed(run))
    assert again.stdout == (
        "nothing to do: round 0 holds the answers of r1.gpkg, r2.gpkg already\n"
    )
    frame = pyogrio.read_dataframe(run.round(0).conflicts, layer="conflicts")
    assert frame.pixels.sum() == record["conflict_pixels"]
    assert (frame.class_a != frame.class_b).all()
    assert set(frame.reviewer_a) == {"oracle 1 (r1.gpkg)"}
    assert frame.geometry.is_valid.all()


def test_a_missing_package_is_named_and_may_be_left_out(run: Run) -> None:
    one, two = reviewed(run)
    first, second = packages(run)
    said = geohsal("ingest", run.path, one, code=3).stderr
    assert f"queries_r000_p2.gpkg ({len(second)} regions) is missing; give all files" in said
    assert not run.ledger.exists()
    summary = ingest(run.path, [two], accept_partial=True)
    assert (summary.done, summary.todo) == (len(second), len(first - second))
    assert summary.agreement == ()
    assert "queries_r000_p1.gpkg" in " ".join(summary.notes)
    with pytest.raises(RunError, match=r"already ingested from r2\.gpkg; take that back first"):
        ingest(run.path, [one, two])


def test_packages_without_their_record_are_known_by_their_regions(run: Run, tmp_path: Path) -> None:
    bare = []
    for path in reviewed(run):
        bare.append(tmp_path / f"bare_{path.name}")
        for layer in ("query_regions", "answers"):
            frame = pyogrio.read_dataframe(path, layer=layer)
            frame["assigned_class"] = frame["assigned_class"].astype("Int32")
            pyogrio.write_dataframe(frame, bare[-1], layer=layer, driver="GPKG")
    with pytest.raises(ReviewError, match=r"queries_r000_p1\.gpkg \(\d regions\) is missing"):
        ingest(run.path, bare[1:])
    expected = ingest(run.path, reviewed(run), dry_run=True)
    found = ingest(run.path, bare)
    assert found.class_pixels == expected.class_pixels
    assert found.agreement[0].confusion == expected.agreement[0].confusion


def test_a_package_cannot_pass_for_another(run: Run, tmp_path: Path) -> None:
    """Its record names its package, and what was asked there."""
    forged = tmp_path / "forged.gpkg"
    shutil.copy(reviewed(run)[0], forged)
    values = read_json(run.round(0).query_json)
    values["packages"] = values["packages"][::-1]
    write_json(run.round(0).query_json, values)
    with pytest.raises(ReviewError, match="belongs to another run, or to a query that was made"):
        ingest(run.path, [forged])


def test_valid_rows_go_in_where_that_is_asked_for(run: Run) -> None:
    one, two = reviewed(run)
    with person(one, "answers") as frame:
        frame.loc[frame.index[:2], "assigned_class"] = 99
        names = frame.loc[frame.index[:2], "region_id"].tolist()
    said = geohsal("ingest", run.path, one, two, code=3)
    assert "is not a class id (0 to 5)" in said.stderr
    assert "take in the rest with --accept-valid" in said.stderr
    assert said.stderr.count("\n") == 1
    assert not run.ledger.exists()
    assert run.current.index == 0
    geohsal("ingest", run.path, one, two, "--accept-valid", "--dry-run")
    taken = geohsal("ingest", run.path, one, two, "--accept-valid")
    assert "left out, because something is wrong (2):" in taken.stdout
    assert taken.stdout.count("assigned_class 99") == 2
    record = read_json(run.round(0).ingest_json)
    assert len(record["problems"]) == record["left_out"] == 2
    entries = {entry.region_id: entry for entry in active_entries(read_ledger(run.ledger))}
    assert any(entries[name].unknown_pixels for name in names)
    assert follows_the_ledger(run)


def test_decisions_of_the_page_are_a_review(run: Run, tmp_path: Path) -> None:
    """One region as prefilled, one of one class, one left undecided."""
    request = read_json(run.round(0).query_json)["request"]
    names = sorted(packages(run)[0])
    kept, whole, odd, bare = names[:4]
    decided = [(kept, "done", ""), (whole, "done", 4), (odd, "unsure", 4), (bare, "", 2)]
    path = tmp_path / "decisions.csv"
    lines = [
        ",".join(map(str, (name, state, class_id, "", "", "Ada", 10**12 + n, 0, request, 1)))
        for n, (name, state, class_id) in enumerate(decided)
    ]
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", "utf-8")
    with pytest.raises(ReviewError, match=r"queries_r000_p2\.gpkg \(\d regions\) is missing"):
        ingest(run.path, [path])
    summary = ingest(run.path, [path], accept_partial=True)
    assert (summary.done, summary.unsure, summary.todo) == (2, 1, 7)
    for name, state in ((odd, "unsure"), (bare, "todo")):
        assert f"region {name}: has a class, but its status is {state}" in summary.notes
    regions = {region.region_id: region for region in read_regions(run.round(0).regions)}
    labels = burnt(run)
    assert (labels[whole][regions[whole].mask] == 4).all()
    assert (labels[odd][regions[odd].mask] == 255).all()
    ingest(run.path, undo=True)
    review = run.round(0).queries(package=1)
    copy = tmp_path / "same.gpkg"
    shutil.copy(review, copy)
    tick(copy, "done", kept)
    ingest(run.path, [copy], accept_partial=True)
    assert np.array_equal(burnt(run)[kept], labels[kept])


def test_a_page_and_a_package_are_taken_together(run: Run, tmp_path: Path) -> None:
    request = read_json(run.round(0).query_json)["request"]
    path = tmp_path / "decisions.csv"
    rows = [
        ",".join(map(str, (name, "done", 4, "", "", "Ada", "", 0, request, 1)))
        for name in packages(run)[0]
    ]
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n", "utf-8")
    summary = ingest(run.path, [path, reviewed(run)[1]])
    assert summary.done == 10
    assert summary.agreement[0].regions == 2
    assert ingest(run.path, [path]).action == "nothing"


def timed(run: Run, seconds: int) -> None:
    """Ada takes so long for every region of package 1, Bob for every one of package 2."""
    for path, who in zip(reviewed(run), ("Ada", "Bob"), strict=True):
        with person(path, "query_regions") as frame:
            frame["reviewed_by"] = who
            frame["reviewed_ms"] = [10**12 + 1000 * seconds * n for n in range(len(frame))]


def test_what_a_review_takes_is_learned_from_its_stamps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geohsal.query.costs.FEWEST_TIMED", 8)
    timed(run, 50)
    said = geohsal("ingest", run.path, *reviewed(run)).stdout
    (line,) = [text for text in said.splitlines() if text.startswith("review time")]
    assert line.endswith("learned from 10 regions")
    assert line in status_lines(status(run.path))
    clocked = [e.seconds for e in active_entries(read_ledger(run.ledger)) if e.seconds == 50]
    assert len(clocked) >= 6
    geohsal("train", run.path)
    summary = query(run.path, budget="3min")
    assert f"review time: {summary.prices}" == line
    assert summary.spent <= 180
    regions = read_regions(run.round(1).regions)
    assert all(region.cost_min == pytest.approx(50 / 60, rel=0.3) for region in regions)


def test_undo_takes_learned_prices_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geohsal.query.costs.FEWEST_TIMED", 8)
    timed(run, 50)
    ingest(run.path, reviewed(run))
    assert "learned" in status(run.path).prices
    said = geohsal("ingest", run.path, "--undo").stdout
    assert "under review again" in said
    assert "review time" not in said
    assert "20 s per region and 5 s per answer, by the settings" in status(run.path).prices
    assert "by the settings (0 of 8" in status(run.path).prices


def test_the_ledger_says_how_good_the_questions_were(run: Run) -> None:
    summary: IngestSummary = ingest(run.path, reviewed(run))
    worth = summary.worth
    assert worth is not None
    entries = active_entries(read_ledger(run.ledger))
    for audit, pixels, share in (
        (False, worth.asked_pixels, worth.asked_teacher_wrong),
        (True, worth.audit_pixels, worth.audit_teacher_wrong),
    ):
        own = [entry for entry in entries if entry.audit == audit]
        assert sum(entry.labelled_pixels for entry in own) == pixels
        assert sum(entry.teacher_wrong or 0 for entry in own) == pytest.approx(share * pixels)


@pytest.mark.parametrize("budget", ["4min", "6min"])
@pytest.mark.parametrize("overlap", ["10%", "50%", "1"])
def test_second_reviews_are_paid_out_of_a_budget_in_minutes(
    trained: Run, budget: str, overlap: str
) -> None:
    summary = query(trained.path, budget=budget, packages=2, overlap=overlap, dry_run=True)
    assert summary.overlap_regions >= 1
    assert 60 * summary.minutes <= 60 * float(budget[:-3]) + 1e-6
    assert summary.spent == pytest.approx(60 * summary.minutes, abs=0.5)
    assert summary.spent + summary.unspent == pytest.approx(60 * float(budget[:-3]))


def test_pixels_of_the_overlap_are_paid_for_once(trained: Run) -> None:
    summary = query(trained.path, budget="6000px", packages=2, overlap="50%", dry_run=True)
    assert summary.pixels == summary.spent <= 6000
    assert summary.overlap_regions == round(summary.regions / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--overlap", "10%"), "--overlap 10%: needs --packages of at least 2"),
        (("--packages", "2", "--overlap", "lots"), "--overlap 'lots': not a share; write 10% or"),
        (("--packages", "2", "--overlap", "120%"), "--overlap '120%': not a share"),
        (("--packages", "9"), "--packages 9: the budget buys 3 regions, fewer than one for each"),
        (("--packages", "0"), "0 is not in the range x>=1"),
    ],
)
def test_impossible_packages_are_refused(
    trained: Run, options: tuple[str, ...], message: str
) -> None:
    said = geohsal("query", trained.path, "--budget", "3regions", *options, code=2)
    assert message in said.stderr
    assert trained.round(0).step == "trained"


def test_another_sharing_out_is_another_request(run: Run) -> None:
    assert not query(run.path, budget="10regions", packages=2, overlap="20%").changed
    with pytest.raises(
        RunError, match="budget 10regions in 2 packages, overlap 20%, not 10regions in 3"
    ):
        query(run.path, budget="10regions", packages=3)
    again = query(run.path, budget="10regions", overwrite=True)
    assert [path.name for path in again.files] == ["queries_r000.gpkg"]
    assert not run.round(0).queries(package=1).exists()
    assert read_json(run.round(0).query_json)["packages"] == []


def test_a_file_of_another_run_is_named(run: Run, tmp_path: Path) -> None:
    text = run.manifest.read_text("utf-8")
    run.manifest.write_text(text.replace("synthetic-landscape", "my-town"), "utf-8")
    assert ingest(run.path, reviewed(run), dry_run=True).done == 10  # only the name has changed
    values = read_json(run.round(0).query_json)
    write_json(run.round(0).query_json, {**values, "request": "another"})
    said = geohsal("ingest", run.path, *reviewed(run), code=3).stderr
    assert "r1.gpkg: belongs to run 'synthetic-landscape', not to 'my-town'" in said
    write_json(run.round(0).query_json, values)
    ingest(run.path, reviewed(run))
    tick(reviewed(run)[0], "unsure")
    with pytest.raises(ReviewError, match=r"r1\.gpkg: belongs to run 'synthetic-landscape'"):
        ingest(run.path, reviewed(run))
