"""The example runs from start to finish through the commands' functions, and resumes."""

from pathlib import Path
from typing import Any

import pytest

from geohsal.errors import RequestError
from geohsal.io.ledger import read_ledger
from geohsal.io.run import open_run
from geohsal.workflows import demo as room
from geohsal.workflows.demo import DemoSummary, demo
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.status import status

TINY: dict[str, Any] = {
    "shape": (192, 224),
    "settings": (
        "train.steps=4",
        "train.crop_px=32",
        "train.batch_labelled=2",
        "train.batch_unlabelled=2",
        "train.checkpoints=1",
        "model.window_px=128",
        "model.window_overlap_px=32",
    ),
    "budget": "6regions",
    "device": "cpu",
}


@pytest.mark.slow
def test_the_example_goes_through_two_rounds_and_a_second_call_does_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    first: DemoSummary = demo(tmp_path, report=lines.append, **TINY)
    run = open_run(first.run)
    assert [item.step for item in status(run.path).rounds] == ["ingested", "queried"]
    assert [item.round for item in first.accuracy] == [0, 1]
    assert len(read_ledger(run.ledger)) == 6
    assert first.picture.stat().st_size > 50_000
    assert first.review_file == run.round(1).queries()
    assert any(line.startswith("before any question:") for line in lines)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished step was done again")

    for name in ("train", "evaluate", "query", "answer", "ingest"):
        monkeypatch.setattr(room, name, refuse)
    again = demo(tmp_path, **TINY)
    assert again.accuracy == first.accuracy


@pytest.mark.slow
def test_an_interrupted_example_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "ingest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path, **TINY)
    assert open_run(tmp_path / "run").current.step == "queried"
    summary = demo(tmp_path, **TINY)
    assert [item.step for item in status(summary.run).rounds] == ["ingested", "queried"]


def test_an_example_made_with_another_seed_is_not_touched(tmp_path: Path) -> None:
    write_landscape(tmp_path, seed=1, shape=(192, 224))
    with pytest.raises(RequestError, match="holds an example made with"):
        demo(tmp_path, seed=2, **TINY)
