"""Facts, tables, charts and sections of a report, from records."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_factory import (
    Made,
    diagnose_round,
    evaluate_round,
    ingest_round,
    make_full_run,
    make_run,
    query_round,
    train_round,
)

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo
from geohsal.io.atomic import read_json, write_json
from geohsal.io.html_tree import html_text
from geohsal.workflows.report_charts import accuracy_chart, reliability_chart, states_chart
from geohsal.workflows.report_facts import Measured, RunFacts, run_facts
from geohsal.workflows.report_sections import (
    accuracy_section,
    calibration_section,
    header,
    next_section,
    spent_section,
)
from geohsal.workflows.report_tables import confusion_table, how_timed, spent_table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run with every record."""
    return make_full_run(tmp_path_factory.mktemp("facts"))


@pytest.fixture
def facts(made: Made) -> RunFacts:
    return run_facts(made.run)


@pytest.fixture
def bare(tmp_path: Path) -> Made:
    return make_run(tmp_path, scenes=("north",))


def cells(text: str) -> list[list[str]]:
    """The cells of the rows of tables."""
    rows = text.split("<tr>")[1:]
    plain = [row.replace("<td", "|<td").replace("<th", "|<th") for row in rows]
    return [[part.split(">", 1)[1].split("</t")[0] for part in row.split("|")[1:]] for row in plain]


# --- facts --------------------------------------------------------------------------------------


def test_the_newest_round_with_maps_and_with_a_model_is_known(facts: RunFacts) -> None:
    assert [item.step for item in facts.rounds] == ["ingested", "queried"]
    assert facts.mapped is facts.model is facts.rounds[1]


def test_what_was_spent_is_summed_and_its_clock_known(facts: RunFacts) -> None:
    spent = facts.rounds[0].spent
    assert spent is not None
    assert (spent.regions, spent.pixels, spent.measured) == (3, 743, 2)
    assert (spent.ha, spent.minutes, spent.taken) == (pytest.approx(7.43), 3.0, "2026-03-04")
    assert how_timed(spent) == "measured in 2 of 3 regions"
    assert facts.rounds[1].spent is None


@pytest.mark.parametrize(
    ("timed", "words"), [(0, "expected"), (1, "measured in 1 of 3 regions"), (3, "measured")]
)
def test_minutes_are_expected_or_measured(facts: RunFacts, timed: int, words: str) -> None:
    spent = facts.rounds[0].spent
    assert spent is not None
    assert how_timed(replace(spent, measured=timed)) == words


def test_a_reviewer_without_time_stamps_measures_nothing(bare: Made) -> None:
    train_round(bare)
    query_round(bare)
    ingest_round(bare, stamped=-1)
    spent = run_facts(bare.run).rounds[0].spent
    assert spent is not None
    assert (spent.measured, spent.minutes) == (0, 3.0)


def test_an_evaluation_of_an_older_model_is_stale(bare: Made) -> None:
    train_round(bare)
    evaluate_round(bare, model_hash="older")
    facts = run_facts(bare.run)
    assert facts.rounds[0].measured is not None
    assert facts.rounds[0].measured.stale
    text = html_text(accuracy_section(facts))
    assert "Round 0: trained anew since the evaluation" in text
    assert "For the newest model run: geohsal evaluate" in text


@pytest.mark.parametrize("key", ["confusion", "per_class", "oa"])
def test_a_damaged_record_is_one_line(bare: Made, key: str) -> None:
    train_round(bare)
    path = evaluate_round(bare).evaluation
    record = read_json(path)
    write_json(path, record | {key: {"x": 1}})
    with pytest.raises(DataError, match=r"evaluation\.json: damaged .*restore it from a copy"):
        run_facts(bare.run)


def test_truth_stands_in_where_there_are_no_answers(bare: Made) -> None:
    train_round(bare)
    query_round(bare)
    path = diagnose_round(bare).dir / "diagnostics.json"
    record = read_json(path) | {"reference": "truth"}
    path.unlink()
    write_json(path.with_name("diagnostics_truth.json"), record)
    text = html_text(calibration_section(run_facts(bare.run)))
    assert "held against the manifest's truth" in text
    assert "do not hold for the whole map" not in text


# --- tables -------------------------------------------------------------------------------------


def test_the_spent_table_has_answered_and_open_rounds(facts: RunFacts) -> None:
    rows = cells(html_text(spent_table(facts)))
    assert rows[1] == [
        "round 0", "3", "743", "7.43", "3", "measured in 2 of 3 regions", "2026-03-04",
    ]  # fmt: skip
    assert rows[2] == ["round 1, asked", "6", "1,486", "14.86", "3", "expected", "not yet"]
    assert len(rows) == 3


def test_hectares_need_a_ground(tmp_path: Path) -> None:
    facts = run_facts(make_full_run(tmp_path, local=True).run)
    rows = cells(html_text(spent_table(facts)))
    assert [row[3] for row in rows[1:]] == ["no ground", "no ground"]


def measured(matrix: np.ndarray) -> Measured:
    return Measured(
        oa=0.9, miou=0.8, pixels=int(matrix.sum()), reference={}, per_class={}, confusion=matrix,
        stale=False,
    )  # fmt: skip


def infos(count: int) -> list[ClassInfo]:
    return [ClassInfo(class_id=i, name=f"c{i}", color="#000000") for i in range(count)]


def test_rows_are_the_reference_and_columns_the_map() -> None:
    matrix = np.array([[90, 10], [3, 0]])
    text = html_text(confusion_table(measured(matrix), infos(2)))
    assert cells(text) == [
        ["reference \u2193  map \u2192", "c0", "c1"],
        ["c0", "90", "10"],
        ["c1", "3", "0"],
    ]
    assert '<td class="h6 hit">90</td>' in text
    assert '<td class="h1">10</td>' in text
    assert '<td class="h6">3</td>' in text
    assert '<td class="hit">0</td>' in text


def test_many_classes_keep_the_largest_and_every_pixel() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 9, (200, 200))
    matrix[150] += 1000
    rows = cells(html_text(confusion_table(measured(matrix), infos(200))))
    assert len(rows) == len(rows[0]) == 21
    assert rows[0][-1] == rows[-1][0] == "181 other classes"
    assert "c150" in rows[0]
    assert rows[0][1:-1] == sorted(rows[0][1:-1], key=lambda name: int(name[1:]))
    shown = sum(int(cell.replace(",", "")) for row in rows[1:] for cell in row[1:])
    assert shown == matrix.sum()
    row = next(row for row in rows if row[0] == "c150")
    assert sum(int(cell.replace(",", "")) for cell in row[1:]) == matrix[150].sum()


# --- charts -------------------------------------------------------------------------------------


def test_charts_say_their_figures_and_are_the_same_every_time(facts: RunFacts) -> None:
    points = [(item.index, 3 * item.index, item.measured) for item in facts.rounds]
    judged = facts.rounds[0].calibration
    assert judged is not None
    charts = [
        lambda: accuracy_chart(points),  # type: ignore[arg-type]
        lambda: reliability_chart(judged.every),
        lambda: states_chart([(0, dict.fromkeys(
            ("TRUSTED", "CONFIRMED", "CORRECTED", "AMBIGUOUS", "NOVEL"), 0.2))]),
    ]  # fmt: skip
    texts = [html_text(chart()) for chart in charts]
    assert texts == [html_text(chart()) for chart in charts]
    for words in ("0.800", "0.700", "round 1", "3 regions", "mIoU"):
        assert words in texts[0]
    assert "error probability stated" in texts[1]
    assert "ambiguous" in texts[2]
    assert all("style=" not in text and "http" not in text for text in texts)


def test_a_single_round_is_a_point(facts: RunFacts) -> None:
    found = facts.rounds[0].measured
    assert found is not None
    assert "0.800" in html_text(accuracy_chart([(0, 0, found)]))


# --- sections -----------------------------------------------------------------------------------


def test_the_head_says_what_the_run_is_and_what_comes_next(facts: RunFacts) -> None:
    text = html_text(header(facts))
    assert '<h1>my &lt;town&gt; &amp; "fields"</h1>' in text
    assert "Round 1 is queried." in text
    assert "round 0 on 2026-03-04" in text
    assert "0.0.9 (trained the model)" in text
    assert f"geohsal ingest {facts.status.run}" in text.replace("'", "")


def test_a_run_that_is_only_tiled_says_what_is_missing(bare: Made) -> None:
    facts = run_facts(bare.run)
    text = "".join(
        html_text(part(facts))
        for part in (header, spent_section, accuracy_section, calibration_section, next_section)
    )
    for sentence in (
        "none trained yet",
        "Nothing is asked yet, so nothing is spent.",
        "No round has an evaluation, and none is trained yet.",
        "The error mask is judged by answers, and none are taken in yet.",
        "No round is queried yet, so pixels have no states.",
        "No answers are in yet, so nothing says whether another round is worth it.",
    ):
        assert sentence in text
    assert "geohsal train" in text


def test_rounds_without_an_evaluation_are_named_with_the_command(bare: Made) -> None:
    for index in (0, 1):
        train_round(bare, index)
        query_round(bare, index)
    ingest_round(bare)
    text = html_text(accuracy_section(run_facts(bare.run)))
    assert f"No round has an evaluation; run: geohsal evaluate {bare.run.path}." in text
    evaluate_round(bare, 0)
    text = html_text(accuracy_section(run_facts(bare.run)))
    assert "Round 1: without an evaluation." in text
    assert "For the newest model run: geohsal evaluate" in text
    evaluate_round(bare, 1)
    text = html_text(accuracy_section(run_facts(bare.run)))
    assert "without an evaluation" not in text
    assert "For the newest model" not in text


def test_answers_without_diagnostics_name_the_command(bare: Made) -> None:
    train_round(bare)
    query_round(bare)
    ingest_round(bare)
    text = html_text(calibration_section(run_facts(bare.run)))
    assert "no round has diagnostics; run: geohsal status --diagnostics" in text


def test_the_next_round_is_weighed(facts: RunFacts) -> None:
    text = html_text(next_section(facts))
    assert "<p>Another round is worth it: a round still changed 10.0 % of the map" in text
    assert "Another round is expected to change at most 10.0 % of the map." in text
    assert "Round 1 asks about 6 regions (1,486 px, 14.86 ha), of them 2 drawn at random" in text


def test_what_the_error_probability_is_made_of_is_said(facts: RunFacts) -> None:
    words = "the error probability comes from the error mask (AUROC 0.8)."
    text = html_text(calibration_section(facts))
    assert f"In round 0 {words} In round 1 {words}" in text
