"""Settings of the benchmark datasets: whole, valid, and in line with the protocol they print."""

from pathlib import Path

import pytest

from geohsal.config import config_from_dict
from geohsal.config.loading import parse_yaml_mapping

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("dataset", ["vaihingen", "loveda", "cityscapes"])
def test_settings_are_valid_and_the_protocol_says_what_they_are(dataset: str) -> None:
    text = (CONFIGS / f"bench_{dataset}.yaml").read_text()
    values = parse_yaml_mapping(text, where=dataset)
    simulate = values.pop("simulate")
    config = config_from_dict(values, where=dataset)
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"geohsal manifest {dataset} ROOT -o {dataset}.yaml" in header
    assert f"{config.train.crop_px} px in training" in header
    assert f"windows of {config.model.window_px} px" in header
    assert f"blended over {config.model.window_overlap_px}" in header
    assert f"cells of {config.query.region_px} px" in header
    assert set(simulate) == {"rounds", "seeds", "initial", "budget", "noise", "cells"}
    asked = float(simulate["initial"][:-1]) + (simulate["rounds"] - 1) * float(
        simulate["budget"][:-1]
    )
    assert f"cells of {config.query.region_px} px: {asked:g} %" in header
    assert len(simulate["seeds"]) >= 3
