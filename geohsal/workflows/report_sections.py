"""The sections of a report but the map, each from records; what is missing is said in words."""

import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence

from geohsal import __version__
from geohsal.geo.budget import counted
from geohsal.io.html_tree import Child, element, table
from geohsal.workflows.diagnose import FREE_STATES
from geohsal.workflows.report_charts import accuracy_chart, reliability_chart, states_chart
from geohsal.workflows.report_facts import Measured, RoundFacts, RunFacts
from geohsal.workflows.report_reasons import error_source
from geohsal.workflows.report_tables import (
    accuracy_table,
    class_table,
    confusion_table,
    number,
    quality_table,
    spent_table,
)
from geohsal.workflows.status import status_lines

MOST_SCENES_NAMED = 12

CONTENTS = (
    ("spent", "Spent"),
    ("accuracy", "Accuracy"),
    ("map", "Map"),
    ("corrections", "Corrections"),
    ("calibration", "Error mask"),
    ("next", "Next round"),
)


def section(name: str, title: str, *children: Child) -> ET.Element:
    """A part of the page under its own heading."""
    return element("section", element("h2", title), *children, id=name)


def missing(text: str) -> ET.Element:
    """A plain sentence on what is not there."""
    return element("p", text, class_="missing")


def quiet(text: str) -> ET.Element:
    """An explanation in small print."""
    return element("p", text, class_="quiet")


def header(facts: RunFacts) -> ET.Element:
    """Name, where the run stands, what comes next, and what the run is made of."""
    state = facts.status
    newest = state.rounds[-1]
    lines = element("pre", "\n".join(status_lines(state)))
    following = element(
        "div",
        element("p", f"Next: {state.next_step}."),
        element("pre", element("code", state.next_command)),
        class_="next",
    )
    return element(
        "header",
        element("h1", state.name),
        element("p", f"Round {newest.index} is {newest.step}."),
        following,
        element("dl", *_pairs(_about(facts))),
        element("nav", *(element("a", words, href=f"#{name}") for name, words in CONTENTS)),
        element("h3", "Classes"),
        class_table(facts),
        element("details", element("summary", "Status in full"), lines),
    )


def _about(facts: RunFacts) -> Iterable[tuple[str, str]]:
    names = list(facts.scenes)
    shown = ", ".join(names[:MOST_SCENES_NAMED])
    more = len(names) - MOST_SCENES_NAMED
    yield "scenes", f"{len(names):,}: {shown}" + (f" and {more:,} more" if more > 0 else "")
    yield "classes", f"{len(facts.classes):,}"
    taken = [
        f"round {item.index} on {item.spent.taken}"
        for item in facts.rounds
        if item.spent is not None and item.spent.taken
    ]
    yield "answers taken in", ", ".join(taken) or "none yet"
    model = facts.model
    if model is None:
        yield "model", "none trained yet"
        yield "geohsal", f"{__version__} (wrote this page)"
        return
    yield "model", f"of round {model.index}, {model.passport.get('model_hash', 'without a hash')}"
    trained = model.passport.get("geohsal", "an unknown version")
    yield "geohsal", f"{trained} (trained the model), {__version__} (wrote this page)"


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[ET.Element]:
    return [item for name, text in pairs for item in (element("dt", name), element("dd", text))]


def spent_section(facts: RunFacts) -> ET.Element:
    """What answers cost."""
    if not any(item.spent or item.asked for item in facts.rounds):
        return section("spent", "Spent", missing("Nothing is asked yet, so nothing is spent."))
    return section(
        "spent",
        "Spent",
        spent_table(facts),
        quiet(
            "Minutes are measured where reviewers left time stamps, and else expected by the cost "
            f"model: {facts.status.prices}."
        ),
    )


def accuracy_section(facts: RunFacts) -> ET.Element:
    """Accuracy by round, and the newest evaluation by class."""
    points = _points(facts)
    if not points:
        words = "No round has an evaluation"
        words += (
            f"; run: {_command(facts, 'evaluate')}" if facts.model else ", and none is trained yet"
        )
        return section("accuracy", "Accuracy", missing(f"{words}."))
    newest, _, found = points[-1]
    against = ", ".join(f"{scene} ({what})" for scene, what in found.reference.items())
    return section(
        "accuracy",
        "Accuracy",
        *(missing(text) for text in _unmeasured(facts)),
        element("div", accuracy_chart(points), class_="charts"),
        element(
            "p",
            f"Round {newest}: overall accuracy {100 * found.oa:.1f} %, mIoU {found.miou:.3f}, on "
            f"{found.pixels:,} test pixels of {against}.",
        ),
        element("h3", f"By class, round {newest}"),
        accuracy_table(found, facts.classes),
        element("h3", f"Confusion matrix, round {newest}"),
        confusion_table(found, facts.classes),
        quiet(
            "Rows are the reference, columns the map, cells test pixels; the darker, the larger "
            "the share of the row. Right pixels are framed."
        ),
    )


def _points(facts: RunFacts) -> list[tuple[int, int, Measured]]:
    """(round, regions answered before, evaluation) of the rounds that have one."""
    found, answered = [], 0
    for item in facts.rounds:
        if item.measured is not None:
            found.append((item.index, answered, item.measured))
        answered += item.spent.regions if item.spent else 0
    return found


def _unmeasured(facts: RunFacts) -> Iterable[str]:
    stale = [item.index for item in facts.rounds if item.measured and item.measured.stale]
    if stale:
        yield f"{_rounds(stale)} trained anew since the evaluation, whose figures are older."
    without = [item.index for item in facts.rounds if item.passport and item.measured is None]
    if without:
        yield f"{_rounds(without)} without an evaluation."
    model = facts.model
    if model is not None and (model.measured is None or model.measured.stale):
        yield f"For the newest model run: {_command(facts, 'evaluate')}."


def _command(facts: RunFacts, *words: str) -> str:
    return shlex.join(["geohsal", *words, str(facts.status.run)])


def _rounds(numbers: Sequence[int]) -> str:
    noun = "Round" if len(numbers) == 1 else "Rounds"
    return f"{noun} {', '.join(map(str, numbers))}:"


def calibration_section(facts: RunFacts) -> ET.Element:
    """Whether the error mask states the truth, and the states of pixels by round."""
    judged = facts.newest(lambda item: item.calibration is not None)
    return section(
        "calibration",
        "Error mask and states of pixels",
        *(_calibration(facts, judged) if judged else _not_judged(facts)),
        *_made_of(facts),
        *_states(facts),
    )


def _made_of(facts: RunFacts) -> list[ET.Element]:
    said = [
        f"In round {item.index} {words}."
        for item in facts.rounds
        if item.passport and (words := error_source(item.passport)) is not None
    ]
    return [quiet(" ".join(said))] if said else []


def _not_judged(facts: RunFacts) -> list[ET.Element]:
    if any(item.step == "ingested" for item in facts.rounds):
        command = _command(facts, "status", "--diagnostics")
        words = f"Answers are in, but no round has diagnostics; run: {command}"
    else:
        words = "The error mask is judged by answers, and none are taken in yet"
    return [missing(f"{words}.")]


def _calibration(facts: RunFacts, judged: RoundFacts) -> list[ET.Element]:
    found = judged.calibration
    assert found is not None
    every = found.every
    if not every.pixels:
        return [missing(f"Round {judged.index} has diagnostics, but no pixel could be judged.")]
    against = "what reviewers said" if found.reference == "answers" else "the manifest's truth"
    return [
        element(
            "p",
            f"Round {judged.index}, held against {against}: expected calibration error (ECE) "
            f"{number(every.ece)}, AUROC {number(every.auroc)} over all pixels and "
            f"{number(found.confident.auroc)} over confident ones.",
        ),
        element("div", reliability_chart(every), class_="charts"),
        quiet(
            "Bars: the share of pixels in which the teacher was wrong, by the error probability "
            "stated. Bars on the dashed line: what is stated is true. Below: how many pixels."
        ),
        quality_table(facts.rounds),
        quiet(_whose_shares(found.reference)),
    ]


def _whose_shares(reference: str) -> str:
    words = "Confident pixels: the teacher's confidence is 0.9 or more."
    if reference == "truth":
        return words
    return (
        f"{words} Regions are chosen because errors are expected there, so these shares do not "
        "hold for the whole map."
    )


def _states(facts: RunFacts) -> list[ET.Element]:
    shares = [
        (item.index, share)
        for item in facts.rounds
        if item.asked is not None and (share := _state_shares(item.asked.states))
    ]
    if not shares:
        return [missing("No round is queried yet, so pixels have no states.")]
    rows = [
        (f"round {index}", *(f"{share[state.name]:.1%}" for state in FREE_STATES))
        for index, share in shares
    ]
    return [
        element("h3", "States of unlabelled pixels"),
        element("div", states_chart(shares), class_="charts"),
        table(("", *(state.name.lower() for state in FREE_STATES)), rows),
    ]


def _state_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Shares of unlabelled pixels by state; {} where none is counted."""
    free = sum(counts.get(state.name, 0) for state in FREE_STATES)
    return {state.name: counts.get(state.name, 0) / free for state in FREE_STATES} if free else {}


def next_section(facts: RunFacts) -> ET.Element:
    """What another round would bring, and what the open one asks."""
    advice, state = facts.status.advice, facts.status
    parts: list[ET.Element] = []
    if advice is None:
        parts.append(
            missing("No answers are in yet, so nothing says whether another round is worth it.")
        )
    else:
        parts.append(element("p", f"{advice.message[:1].upper()}{advice.message[1:]}."))
        if advice.expected_change is not None:
            share = 100 * advice.expected_change
            parts.append(
                quiet(f"Another round is expected to change at most {share:.1f} % of the map.")
            )
    open_ = facts.rounds[-1]
    if open_.step == "queried" and open_.asked is not None:
        asked = open_.asked
        area = "" if asked.ha is None else f", {asked.ha:,.2f} ha"
        parts.append(
            element(
                "p",
                f"Round {open_.index} asks about {counted(asked.regions, 'region')} "
                f"({asked.pixels:,} px{area}), of them {asked.audits:,} drawn at random; a "
                f"review of about {asked.minutes:.0f} minutes.",
            )
        )
    parts.append(element("p", f"Next: {state.next_step}."))
    parts.append(element("pre", element("code", state.next_command)))
    return section("next", "What the next round would bring", *parts)
