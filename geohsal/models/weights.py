"""Initial encoder weights: by the names of smp, timm and torchgeo, or from a local file."""

from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchgeo.models import get_weight

from geohsal.errors import ConfigError, ModelError

OFFLINE = "without a network, give model.weights the path of a local .safetensors file"


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
    if weights.endswith(".safetensors"):
        state = _file_state(Path(weights))
    elif Path(weights).exists():
        raise ConfigError(
            f"model.weights {weights!r}: is not a .safetensors file, and no other format is read"
        )
    elif "_Weights." in weights:
        state = _torchgeo_state(weights)
    else:
        state = _smp_state(weights, name=name)
    _fill(encoder, state, source=weights)


def _file_state(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"model.weights {path}: cannot be read ({error}); give the path of a .safetensors file"
        ) from None


def _torchgeo_state(weights: str) -> dict[str, Tensor]:
    try:
        found: Any = get_weight(weights)
    except (ValueError, KeyError, AttributeError):
        raise ConfigError(f"model.weights {weights!r}: torchgeo knows no such weights") from None
    try:
        state: dict[str, Tensor] = found.get_state_dict(progress=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model.weights {weights!r}: download failed ({error}); {OFFLINE}"
        ) from None
    return state


def _smp_state(weights: str, *, name: str) -> dict[str, Tensor]:
    try:
        encoder = smp.encoders.get_encoder(name, in_channels=3, depth=5, weights=weights)
    except KeyError:
        raise ConfigError(
            f"model.weights {weights!r}: encoder {name!r} has no weights of that name"
        ) from None
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
