"""Method `balanced` through the real command line: what was taught is taken out each round."""

import json
from pathlib import Path

import pytest
from tiny_run import geohsal

from geohsal.io.atomic import read_json
from geohsal.io.run import open_run
from geohsal.training.model_io import load_model


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
