"""Rule knn through the real command line."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import geohsal

from geohsal.io.run import open_run
from geohsal.training.model_io import STATISTICS, load_model


def test_a_round_by_nearest_neighbours(
    tiny_landscape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", tiny_landscape, "-o", folder, "-c", settings, "--set", "plar.rule=knn")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faiss", None)
        refused = geohsal("train", folder, "--set", "plar.knn_backend=faiss", code=2)
    assert "pip install geohsal[faiss]" in refused.output
    geohsal("train", folder, "--set", "plar.neighbours=12")
    made = json.loads(geohsal("query", folder, "--budget", "4regions", "--json").stdout)
    assert made["regions"] == 4
    model_dir = open_run(folder).round(0).model_dir
    state = load_model(model_dir).refine_state
    assert state is not None
    stored = load_file(model_dir / STATISTICS)
    assert len(stored["bank"]) == len(stored["bank_label"]) > 0
    assert torch.equal(torch.from_numpy(state.statistics.bank), stored["bank"])
