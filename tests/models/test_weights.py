"""Weights known by name are found in a local folder or in a hub's cache, without a network."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file

from geohsal.errors import ConfigError, ModelError
from geohsal.models import weights as room
from geohsal.models.weights import (
    ensure_known,
    fetch_weights,
    find_offline,
    load_encoder_weights,
    local_name,
)

TORCHGEO = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
CACHED = "resnet18_sentinel2_all_moco-59bfdff9.pth"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hubs are refused, and their caches are empty."""
    monkeypatch.delenv("GEOHSAL_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(room, "try_to_load_from_cache", lambda *_, **__: None)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchgeo.models.resnet.WeightsEnum.get_state_dict", refuse)


def encoder(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return smp.encoders.get_encoder("resnet18", in_channels=4, depth=3, weights=None)


@pytest.mark.parametrize(
    ("weights", "file"),
    [(TORCHGEO, f"{TORCHGEO}.safetensors"), ("imagenet", "resnet18.imagenet.safetensors")],
)
def test_the_folder_comes_before_a_network(
    weights: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, target = encoder(1), encoder(2)
    (tmp_path / "weights").mkdir()
    save_file(given.state_dict(), tmp_path / "weights" / file)
    assert local_name(weights, name="resnet18") == file
    monkeypatch.setenv("GEOHSAL_WEIGHTS", str(tmp_path / "weights"))
    assert find_offline(weights, name="resnet18") == tmp_path / "weights" / file
    load_encoder_weights(target, weights, name="resnet18")
    state = target.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in given.state_dict().items())


def test_weights_on_no_disk_say_where_to_put_them() -> None:
    assert find_offline(TORCHGEO, name="resnet18") is None
    assert find_offline("imagenet", name="resnet18") is None
    assert find_offline("imagenet", name="tu-resnet10t") is None
    with pytest.raises(ModelError, match="put it into the folder that GEOHSAL_WEIGHTS names"):
        load_encoder_weights(encoder(0), TORCHGEO, name="resnet18")


def test_caches_of_hubs_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "torch" / "hub" / "checkpoints" / CACHED
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_offline(TORCHGEO, name="resnet18") == cached
    asked = []

    def found(repository: str, file: str, *, revision: str | None) -> str | None:
        asked.append((repository, revision))
        return f"/cache/{file}" if file == "model.safetensors" else None

    monkeypatch.setattr(room, "try_to_load_from_cache", found)
    assert find_offline("imagenet", name="resnet18") == Path("/cache/model.safetensors")
    assert find_offline("imagenet", name="tu-resnet10t") == Path("/cache/model.safetensors")
    assert [repository for repository, _ in asked] == [
        *("smp-hub/resnet18.imagenet", "timm/resnet10t.c3_in1k")
    ]


def test_names_that_nobody_knows_are_refused_before_anything_is_loaded() -> None:
    ensure_known(TORCHGEO, name="resnet18")
    ensure_known("imagenet", name="resnet18")
    with pytest.raises(ConfigError, match="torchgeo knows no such weights"):
        ensure_known("ResNet18_Weights.NOTHING", name="resnet18")
    with pytest.raises(ConfigError, match="encoder 'resnet18' has no weights of that name"):
        ensure_known("imagnet", name="resnet18")


def test_weights_are_fetched_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = encoder(1).state_dict()
    monkeypatch.setattr("torchgeo.models.resnet.WeightsEnum.get_state_dict", lambda *_, **__: state)
    path = fetch_weights(TORCHGEO, name="resnet18", folder=tmp_path / "new")
    assert [item.name for item in (tmp_path / "new").iterdir()] == [f"{TORCHGEO}.safetensors"]
    assert load_file(path).keys() == state.keys()
