"""A model folder: weights and statistics as safetensors, everything else in model.json.

Nothing in it can run code; model.json is written last and holds the hashes of the others.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geohsal import __version__
from geohsal.config import FORMAT_VERSION, Config, config_from_dict, config_to_dict
from geohsal.data.dataset import BandScale
from geohsal.errors import ConfigError, DataError, ModelError
from geohsal.geo.scene import ClassInfo
from geohsal.io.atomic import make_folder, read_json, replacing, unwritten, write_json
from geohsal.models.tsf import InferenceNetworks, build_inference_networks
from geohsal.training.inference import Predictor, WindowGrid
from geohsal.training.judgement import RefineState

WEIGHTS = "model.safetensors"
STATISTICS = "statistics.safetensors"
PASSPORT = "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained model and all that is needed to use it on another raster."""

    networks: InferenceNetworks
    refine_state: RefineState | None
    config: Config
    bands: tuple[str, ...]
    scale: BandScale
    classes: tuple[ClassInfo, ...]
    model_hash: str
    taught: NDArray[np.float64] | None = None  # [C] class shares that the teacher believes in

    def predictor(self, device: torch.device) -> Predictor:
        """The frozen networks, ready for a scene."""
        return Predictor(
            self.networks, scale=self.scale, grid=window_grid(self.config), device=device
        )


def window_grid(config: Config) -> WindowGrid:
    """The inference window of these settings."""
    return WindowGrid(size=config.model.window_px, overlap=config.model.window_overlap_px)


def save_model(
    folder: Path,
    networks: InferenceNetworks,
    *,
    refine_state: RefineState | None,
    config: Config,
    bands: tuple[str, ...],
    scale: BandScale,
    classes: tuple[ClassInfo, ...],
    extra: dict[str, Any],
) -> str:
    """Write a model folder; model.json last. Gives the hash of weights and statistics."""
    make_folder(folder)
    hashes = {WEIGHTS: _save(folder / WEIGHTS, _unshared(networks.state_dict()))}
    thresholds: dict[str, Any] | None = None
    if refine_state is not None:
        tensors, thresholds = refine_state.to_parts()
        hashes[STATISTICS] = _save(folder / STATISTICS, tensors)
    digest = hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()
    write_json(
        folder / PASSPORT,
        {
            "format_version": FORMAT_VERSION,
            "geohsal": __version__,
            "model_hash": digest,
            "files": hashes,
            "bands": [
                {"name": name, "mean": mean, "std": std}
                for name, mean, std in zip(bands, scale.mean, scale.std, strict=True)
            ],
            "classes": [
                {"id": c.class_id, "name": c.name, "color": c.color, "description": c.description}
                for c in classes
            ],
            "window_px": config.model.window_px,
            "window_overlap_px": config.model.window_overlap_px,
            "thresholds": thresholds,
            "config": config_to_dict(config),
            **extra,
        },
    )
    return digest


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}


def _save(path: Path, tensors: dict[str, Tensor]) -> str:
    with replacing(path) as part:
        try:
            save_file(tensors, part)
        except SafetensorError as error:  # its own word for a full disk
            raise unwritten(path, error) from None
        return _hash(part)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_model(folder: Path) -> Model:
    """The model in a folder.

    Raises:
        ModelError: a file is missing, damaged, of another version, or does not fit the others.
    """
    passport = _passport(folder)
    try:
        config = config_from_dict(passport["config"], where=f"{folder / PASSPORT}: config")
        bands = passport["bands"]
        classes = tuple(
            ClassInfo(
                class_id=c["id"], name=c["name"], color=c["color"], description=c["description"]
            )
            for c in passport["classes"]
        )
        networks = build_inference_networks(config, bands=len(bands), classes=len(classes))
        weights = _load(folder, WEIGHTS, passport)
        weights.setdefault("prior_shift", torch.zeros(len(classes)))  # folders of 0.1 have none
        networks.load_state_dict(weights)
        refine_state = None
        if passport["thresholds"] is not None:
            refine_state = RefineState.from_parts(
                _load(folder, STATISTICS, passport), passport["thresholds"]
            )
        names = tuple(str(band["name"]) for band in bands)
        scale = BandScale(
            mean=tuple(float(band["mean"]) for band in bands),
            std=tuple(float(band["std"]) for band in bands),
        )
        taught = _taught(passport.get("taught"), classes=len(classes))
        model_hash = passport["model_hash"]
        if not isinstance(model_hash, str):
            raise TypeError("model_hash is not text")
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder}: model.json and weights do not fit together ({reason})"
        ) from None
    return Model(
        networks=networks,
        refine_state=refine_state,
        config=config,
        bands=names,
        scale=scale,
        classes=classes,
        model_hash=model_hash,
        taught=taught,
    )


def _taught(values: object, *, classes: int) -> NDArray[np.float64] | None:
    """[C] class shares that the teacher believes in; None in folders that do not tell.

    Raises:
        ValueError: these are no shares of so many classes.
    """
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != classes:
        raise ValueError(f"taught is not a list of {classes} numbers")
    if not all(type(value) in (int, float) and 0 <= value < np.inf for value in values):
        raise ValueError("taught holds something that is no share")
    return np.asarray(values, dtype=np.float64)


def _passport(folder: Path) -> dict[str, Any]:
    try:
        passport = read_json(folder / PASSPORT)
    except DataError as error:
        raise ModelError(f"{folder}: not a model folder ({error})") from None
    version = passport.get("format_version") if isinstance(passport, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(f"{folder}: model.json has format_version {version}, not {FORMAT_VERSION}")
    assert isinstance(passport, dict)
    return passport


def _load(folder: Path, name: str, passport: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / name
    try:
        if _hash(path) != passport["files"][name]:
            raise ModelError(f"{path}: differs from the hash in model.json; the file is damaged")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from None
