"""Initial encoder weights: by the names of smp, timm and torchgeo, or from local files."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm import get_pretrained_cfg
from torch import Tensor, nn
from torchgeo.models import get_weight

from geohsal.errors import ConfigError, ModelError

_SMP_ENCODERS: dict[str, Any] = smp.encoders.encoders

FOLDER = "GEOHSAL_WEIGHTS"
"""Variable that names a folder of weights, `local_name` each, looked into before a network."""

OFFLINE = (
    f"without a network, put it into the folder that {FOLDER} names, or give model.weights the "
    "path of a local .safetensors file"
)


def load_encoder_weights(encoder: nn.Module, weights: str, *, name: str) -> None:
    """Fill an encoder of segmentation-models-pytorch in place.

    Args:
        encoder: the encoder, built with any number of bands.
        weights: a local .safetensors path, a torchgeo weight (`ResNet18_Weights.SENTINEL2_...`),
            or a weight that segmentation-models-pytorch knows for this encoder (`imagenet`).
        name: the encoder's name.

    Raises:
        ConfigError: nobody knows the weight's name.
        ModelError: the file is missing or damaged, fits the encoder nowhere, or the download
            failed.
    """
    _fill(encoder, _state(weights, name=name), source=weights)


def fetch_weights(weights: str, *, name: str, folder: Path) -> Path:
    """Put weights that are known by name into a folder, for machines without a network.

    Args:
        weights: as for `load_encoder_weights`.
        name: the encoder's name.
        folder: what the variable GEOHSAL_WEIGHTS is to name there.

    Raises:
        ConfigError: nobody knows the weight's name.
        ModelError: the download failed.
    """
    path = folder / local_name(weights, name=name)
    state = _state(weights, name=name)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    save_file({key: value.contiguous().clone() for key, value in state.items()}, part)
    part.replace(path)
    return path


def local_name(weights: str, *, name: str) -> str:
    """File name of weights in the folder of GEOHSAL_WEIGHTS; `name` is the encoder's."""
    return f"{weights if _of_torchgeo(weights) else f'{name}.{weights}'}.safetensors"


def find_offline(weights: str, *, name: str) -> Path | None:
    """Where weights are found without a network: a file, GEOHSAL_WEIGHTS, or a hub's cache."""
    if weights.endswith(".safetensors"):
        return Path(weights) if Path(weights).is_file() else None
    local = _in_folder(weights, name=name)
    if local is not None:
        return local
    if _of_torchgeo(weights):
        return _torch_cache(get_weight(weights).url)
    if name.startswith("tu-"):
        known: Any = get_pretrained_cfg(name.removeprefix("tu-"))
        return (_hub_cache(known.hf_hub_id) or _torch_cache(known.url)) if known else None
    found = _SMP_ENCODERS[name]["pretrained_settings"][weights]
    return _hub_cache(found["repo_id"], revision=found["revision"])


def ensure_known(weights: str, *, name: str) -> None:
    """Weights that are no file must be a name that somebody knows; loads nothing.

    Raises:
        ConfigError: nobody knows it.
    """
    if _of_torchgeo(weights) and not weights.endswith(".safetensors"):
        _torchgeo_weight(weights)
    if _of_torchgeo(weights) or weights.endswith(".safetensors") or name.startswith("tu-"):
        return
    if weights not in _SMP_ENCODERS.get(name, {}).get("pretrained_settings", {}):
        raise _unknown(weights, name)


def _of_torchgeo(weights: str) -> bool:
    return "_Weights." in weights


def _in_folder(weights: str, *, name: str) -> Path | None:
    folder = os.environ.get(FOLDER)
    path = Path(folder) / local_name(weights, name=name) if folder else None
    return path if path is not None and path.is_file() else None


def _torch_cache(url: str | None) -> Path | None:
    if not url:
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    return path if path.is_file() else None


def _hub_cache(repository: str | None, *, revision: str | None = None) -> Path | None:
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = repository and try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _state(weights: str, *, name: str) -> dict[str, Tensor]:
    local = _in_folder(weights, name=name)
    if weights.endswith(".safetensors"):
        state = _file_state(Path(weights))
    elif local is not None:
        state = _file_state(local)
    elif Path(weights).exists():
        raise ConfigError(
            f"model.weights {weights!r}: is not a .safetensors file, and no other format is read"
        )
    elif _of_torchgeo(weights):
        state = _torchgeo_state(weights)
    else:
        state = _smp_state(weights, name=name)
    return state


def _file_state(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"model.weights {path}: cannot be read ({error}); give the path of a .safetensors file"
        ) from None


def _torchgeo_state(weights: str) -> dict[str, Tensor]:
    found = _torchgeo_weight(weights)
    try:
        state: dict[str, Tensor] = found.get_state_dict(progress=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model.weights {weights!r}: download failed ({error}); {OFFLINE}"
        ) from None
    return state


def _torchgeo_weight(weights: str) -> Any:
    try:
        return get_weight(weights)
    except (ValueError, KeyError, AttributeError):
        raise ConfigError(f"model.weights {weights!r}: torchgeo knows no such weights") from None


def _unknown(weights: str, name: str) -> ConfigError:
    return ConfigError(f"model.weights {weights!r}: encoder {name!r} has no weights of that name")


def _smp_state(weights: str, *, name: str) -> dict[str, Tensor]:
    try:
        encoder = smp.encoders.get_encoder(name, in_channels=3, depth=5, weights=weights)
    except KeyError:
        raise _unknown(weights, name) from None
    except Exception as error:  # the hub client raises many kinds, none of them ours
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model.weights {weights!r}: not loaded ({reason}); {OFFLINE}") from None
    state: dict[str, Tensor] = encoder.state_dict()
    return state


def _fill(encoder: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Copy every tensor that fits, the first convolution adapted to the number of bands.

    Raises:
        ModelError: less than half of the encoder's weights are found.
    """
    own = encoder.state_dict()
    bare = {_strip(key): value for key, value in state.items()}
    matched: dict[str, Tensor] = {}
    for key, value in own.items():
        candidate = bare.get(_strip(key))
        if candidate is None:
            continue
        if candidate.shape != value.shape and candidate.dim() == 4:
            candidate = adapt_bands(candidate, bands=value.shape[1])
        if candidate.shape == value.shape:
            matched[key] = candidate.to(value.dtype)
    floating = [key for key, value in own.items() if value.is_floating_point()]
    found = sum(key in matched for key in floating)
    if 2 * found < len(floating):
        raise ModelError(
            f"model.weights {source}: only {found} of {len(floating)} tensors of the encoder are "
            "in it; it belongs to another encoder"
        )
    encoder.load_state_dict({**own, **matched})


def _strip(key: str) -> str:
    for prefix in ("encoder.", "backbone.", "model.", "module."):
        key = key.removeprefix(prefix)
    return key


def adapt_bands(kernel: Tensor, *, bands: int) -> Tensor:
    """A first convolution (out, in, k, k) for another number of bands.

    Input channels are repeated in turn and scaled by in / bands, so that activations keep their
    size (the rule of timm and segmentation-models-pytorch).
    """
    given = kernel.shape[1]
    if given == bands:
        return kernel
    repeated = kernel[:, [band % given for band in range(bands)]]
    return repeated * (given / bands)
