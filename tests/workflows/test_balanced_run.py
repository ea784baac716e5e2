"""Method `balanced` through the real command line: what was taught is taken out each round."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.io.atomic import read_json
from geohsal.io.run import open_run
from geohsal.training.model_io import load_model
from geohsal.workflows.context import open_context
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.validation import validator


def test_a_balanced_round_shifts_before_any_answer_and_after(
    tiny_landscape: Path, tmp_path: Path
) -> None:
    folder, asked = tmp_path / "run", tmp_path / "asked.gpkg"
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", tiny_landscape, "-o", folder, "-c", settings, "--method", "balanced")
    run = open_run(folder)
    for index in range(2):
        geohsal("train", folder)
        priors = read_json(run.round(index).metrics)["priors"]
        assert priors["source"] == "uniform"
        assert len(set(priors["share"].values())) == 1
        model = load_model(run.round(index).model_dir)
        shift = model.networks.prior_shift.tolist()
        assert shift == pytest.approx([priors["shift"][c.name] for c in model.classes], abs=1e-5)
        assert sum(shift) == pytest.approx(0, abs=1e-5)
        taught = model.taught
        assert taught is not None
        known = [number for number, value in enumerate(shift) if value != 0]
        rarest = min(known, key=lambda number: taught[number])
        assert shift[rarest] == max(shift) > 0
        if index == 0:
            made = json.loads(geohsal("query", folder, "--budget", "6regions", "--json").stdout)
            geohsal("answer", folder, made["files"][0], "-o", asked)
            geohsal("ingest", folder, asked)


def test_validation_sees_the_model_that_is_saved(tmp_path: Path) -> None:
    manifest, folder = write_landscape(tmp_path, shape=(192, 224)), tmp_path / "run"
    content = yaml.safe_load(manifest.read_text("utf-8"))
    for scene in content["scenes"]:
        if scene["id"] == "west_2":
            scene |= {"split": "val", "labels": scene["truth"]}
    manifest.write_text(yaml.safe_dump(content), "utf-8")
    settings = tmp_path / "settings.yaml"
    settings.write_text(TINY_SETTINGS, "utf-8")
    few = ("--set", "train.checkpoints=1", "--set", "prior.strength=1.0")  # no look but the first
    geohsal("tile", manifest, "-o", folder, "-c", settings, "--method", "balanced", *few)
    geohsal("train", folder)
    run, device = open_run(folder), torch.device("cpu")
    saved = load_model(run.round(0).model_dir).networks.eval()
    validate = validator(open_context(folder), device)
    assert validate is not None
    assert read_json(run.round(0).metrics)["val_miou"] == pytest.approx(validate(saved), abs=1e-6)
    saved.prior_shift.zero_()
    assert validate(saved) != pytest.approx(read_json(run.round(0).metrics)["val_miou"], abs=1e-6)
