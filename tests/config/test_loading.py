"""Settings from files and lines: where a message says that the fault is."""

from pathlib import Path

import pytest

from geohsal.config import load_config
from geohsal.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("seed: 3", ["train.stepz=3"], r"^--set train.stepz=3: unknown key 'train.stepz'; did you"),
        ("seed: 3", ["seed=4", "train.steps=-1"], r"^--set seed=4 --set train.steps=-1: train.st"),
        ("train: {stepz: 3}", ["seed=4"], r"^config .*own.yaml: unknown key 'train.stepz'"),
    ],
)
def test_what_is_wrong_is_said_of_the_line_or_the_file(
    tmp_path: Path, text: str, overrides: list[str], said: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=said):
        load_config(path, overrides=overrides)


def test_a_line_may_mend_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("train: {steps: -1}", "utf-8")
    assert load_config(path, overrides=["train.steps=4"]).train.steps == 4
