"""Frozen passes that several processes share out give what one process gives, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rank_factory import each_rank
from tiny_run import geohsal

from geohsal.config.launch import Launch
from geohsal.errors import RequestError
from geohsal.models.tsf import build_inference_networks
from geohsal.training import norms
from geohsal.training.collect import collect_pixels
from geohsal.training.inference import Predictor
from geohsal.training.judgement import fit_refine_state
from geohsal.training.model_io import window_grid
from geohsal.training.ranks import ALONE, Ranks
from geohsal.workflows import train as workflow
from geohsal.workflows import train_open
from geohsal.workflows.context import RunContext, open_context
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.validation import count_val, validator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def context(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """A run with a val scene that has labels."""
    folder = tmp_path_factory.mktemp("val")
    manifest = write_landscape(folder, shape=(192, 224))
    content = yaml.safe_load(manifest.read_text("utf-8"))
    for scene in content["scenes"]:
        if scene["id"] == "west_2":
            scene |= {"split": "val", "labels": scene["truth"]}
    manifest.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", manifest, "-o", folder / "run", "-c", settings)
    return open_context(folder / "run")


@pytest.fixture
def predictor(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr("geohsal.training.collect.CHUNK_STRIDES", 1)  # more chunks to share
    torch.manual_seed(3)
    networks = build_inference_networks(
        context.config, bands=len(context.manifest.bands), classes=context.manifest.num_classes
    ).eval()
    return Predictor(networks, scale=context.scale, grid=window_grid(context.config), device=CPU)


@pytest.mark.parametrize("world", [2, 7])
def test_statistics_and_thresholds_are_those_of_one_process(
    context: RunContext, predictor: Predictor, world: int
) -> None:
    data = workflow.round_data(context, 0, device=CPU)

    def work(ranks: Ranks) -> dict[str, Any]:
        pixels = collect_pixels(
            predictor, context.opener, data.regions, withheld=data.withheld, ranks=ranks
        )
        state = fit_refine_state(pixels, num_classes=data.num_classes, config=context.config)
        tensors, thresholds = state.to_parts()
        return {name: value.numpy() for name, value in tensors.items()} | {"json": thresholds}

    whole = work(ALONE)
    for found in each_rank(world, work):
        assert found.keys() == whole.keys()
        assert found.pop("json") == whole["json"]
        for name, value in found.items():
            np.testing.assert_array_equal(value, whole[name])


@pytest.mark.parametrize("world", [2, 12])
def test_validation_counts_each_pixel_once(
    context: RunContext, predictor: Predictor, world: int
) -> None:
    scenes = context.scenes_with("val")
    whole = count_val(context, scenes, predictor, ALONE)
    with context.open("west_2") as scene:
        _, valid = scene.read(scene.scene.extent)
    assert 0 < whole.sum() <= valid.sum()
    for found in each_rank(world, lambda ranks: count_val(context, scenes, predictor, ranks)):
        np.testing.assert_array_equal(found, whole)
    score = validator(context, CPU)(predictor.networks)
    assert score is not None
    assert 0 < score < 1


def test_norms_see_all_processes_on_cuda_alone(context: RunContext) -> None:
    two = Ranks(launch=Launch(by="srun", world=2))
    networks = workflow.initial_networks(context, context.run.round(0))
    names = list(networks.state_dict())
    for ranks, device in ((two, CPU), (ALONE, torch.device("cuda", 0))):
        norms.synchronised(networks, ranks=ranks, device=device)
        assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in networks.modules())
    local = len(norms.running_statistics(networks.student))
    assert local > 0
    norms.synchronised(networks, ranks=two, device=torch.device("cuda", 0))
    assert norms.running_statistics(networks.student, networks.friend) == []
    made = [m for m in networks.student.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert 2 * len(made) == local
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in networks.teacher.modules())
    assert list(networks.state_dict()) == names


@pytest.mark.parametrize(
    ("name", "seen", "expected"),
    [("cpu", 4, "cpu"), ("cuda", 4, "cuda:1"), ("cuda", 1, "cuda:0")],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, seen: int, expected: str
) -> None:
    monkeypatch.setattr(train_open, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    launch = Launch(by="srun", rank=3, world=4, local_rank=1, nodes=2)
    assert train_open.own_device(name, launch) == torch.device(expected)
    assert train_open.own_device(name, Launch()) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "message"), [("cuda:1", "cannot train on one GPU"), ("cuda", "shows 2 GPUs")]
)
def test_too_few_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setattr(train_open, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RequestError, match=message):
        train_open.own_device(name, Launch(by="srun", rank=2, world=4, local_rank=2))


def test_a_batch_script_that_forgot_srun_gets_one_line(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    result = geohsal("train", context.run.path, code=2)
    (line,) = result.stderr.strip().splitlines()
    assert "was started without srun; write: srun geohsal train RUN" in line
