"""Settings as frozen dataclasses, checked where YAML enters; no torch here.

`load_config` overlays a preset or a file on the defaults once (no chains), then `--set a.b=v`.
Every default is geohsal's own choice (docs: method specification); none is "the paper's".
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from geohsal.errors import ConfigError

FORMAT_VERSION = 1
PRESETS = ("cpu-small", "default")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]

BUDGETS = "200regions, 1.5ha, 0.5km2, 5000m2, 2%, 30000px or 45min"
"""How budgets are written; what they mean for a run is known to `geohsal.geo.budget`."""

BUDGET_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(regions|region|m2|ha|km2|%|px|min)"


def _budget(text: str) -> str:
    if not re.fullmatch(BUDGET_PATTERN, text.strip()):
        raise ValueError(f"must be a number with a unit, such as {BUDGETS}")
    return text


BudgetText = Annotated[str, AfterValidator(_budget)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TileConfig:
    """How scenes are cut into tiles."""

    core_px: Annotated[int, Field(ge=16)] = Field(
        default=256, description="side of a tile core in pixels; cores partition the scene"
    )
    overlap_px: Annotated[int, Field(ge=0)] = Field(
        default=32, description="pixels that a tile's window adds on each side of its core"
    )
    max_pixels: Positive = Field(
        default=2_000_000_000,
        description="largest scene (rows x columns) that is scanned; larger ones are refused",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The network of teacher and student."""

    arch: Literal["unet", "unetplusplus", "fpn", "deeplabv3plus"] = Field(
        default="deeplabv3plus", description="decoder, by segmentation-models-pytorch's name"
    )
    encoder: str = Field(
        default="resnet50",
        description="encoder, by segmentation-models-pytorch's name (tu-* for timm)",
    )
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = Field(
        default=5, description="encoder stages in use (fewer: smaller receptive field, faster)"
    )
    decoder_channels: Annotated[int, Field(ge=8)] = Field(
        default=64, description="channels of the last decoder stage: features that PLAR compares"
    )
    pixel_channels: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="channels of a full-resolution stem whose features join the decoder's, so that "
        "single-pixel spectra survive the encoder's strides; 0: none",
    )
    weights: str | None = Field(
        default=None,
        description="initial encoder weights: null (random), a name that smp, timm or torchgeo "
        "knows (needs a network), or the path of a local .safetensors file",
    )
    window_px: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        default=256, description="side of the inference window; belongs to the model"
    )
    window_overlap_px: Annotated[int, Field(ge=0)] = Field(
        default=64,
        description="overlap of neighbouring inference windows, where logits are blended",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """One round of training."""

    steps: Positive = Field(default=8000, description="optimiser steps per round")
    crop_px: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        default=256, description="side of a training crop in pixels"
    )
    batch_labelled: Positive = Field(default=8, description="labelled crops per step")
    batch_unlabelled: Positive = Field(default=8, description="unlabelled crops per step")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="optimiser")
    lr: Annotated[float, Field(gt=0)] = Field(
        default=0.01, description="learning rate at the start"
    )
    encoder_lr_scale: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="the encoder's learning rate as a multiple of lr"
    )
    momentum: Share = Field(default=0.9, description="momentum of sgd")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=1e-4, description="weight decay")
    poly_power: Annotated[float, Field(ge=0)] = Field(
        default=0.9,
        description="exponent of the polynomial learning-rate decay; 0 keeps lr constant",
    )
    grad_clip: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="largest gradient norm; 0 switches clipping off"
    )
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        default="auto",
        description="auto: bf16 mixed on a GPU that has it, 16 mixed on others, 32 on CPU",
    )
    class_weights: Literal["none", "sqrt", "inverse"] = Field(
        default="none",
        description="weight of a class in the supervised loss by its labelled pixels",
    )
    sampling_power: Share = Field(
        default=0.5,
        description="labelled crops draw a class with probability proportional to its labelled "
        "pixels to this power: 0 all classes alike, 1 as labelled",
    )
    checkpoints: Positive = Field(
        default=10, description="parts a round is cut into; state is saved and validated after each"
    )
    heldout_share: Share = Field(
        default=0.2,
        description="share of labelled regions withheld from the supervised loss, another fold "
        "each round: error targets and thresholds come from them",
    )
    restart: bool = Field(
        default=False, description="start a round from the initial weights, not from the last round"
    )
    loader_workers: Annotated[int, Field(ge=0)] = Field(
        default=4, description="processes that read crops; 0 reads in the training process"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class AugmentConfig:
    """Weak views are geometric; strong views add radiometry, blur and CutMix. No hue jitter."""

    scale: tuple[float, float] = Field(
        default=(0.5, 2.0), description="range of the random zoom of weak views"
    )
    scale_p: Share = Field(default=0.5, description="probability that a weak view is zoomed")
    gain: Annotated[float, Field(ge=0)] = Field(
        default=0.2, description="strong: per-band gain drawn from 1 +- gain"
    )
    offset: Annotated[float, Field(ge=0)] = Field(
        default=0.2,
        description="strong: per-band offset in standard deviations, drawn from +- offset",
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        default=0.05,
        description="strong: standard deviation of added noise, in standard deviations",
    )
    blur_p: Share = Field(default=0.5, description="strong: probability of a Gaussian blur")
    cutmix_p: Share = Field(
        default=0.5, description="strong: probability that a crop takes a CutMix box"
    )
    labelled_gain: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="gain and offset range for labelled crops"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SslConfig:
    """Teacher, student, friend (method: TSF)."""

    enabled: bool = Field(
        default=True, description="false: supervised loss only (teacher is still EMA)"
    )
    friend: Literal["head", "peer", "arch", "none"] = Field(
        default="arch",
        description="head: extra decoder on the student's encoder; peer: same network, other "
        "seed; arch: other encoder; none: ablation",
    )
    friend_encoder: str = Field(
        default="resnet34", description="encoder of the friend where friend is arch"
    )
    ema_max: Share = Field(default=0.996, description="largest EMA rate of the teacher")
    weight_max: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="largest weight of the unsupervised loss"
    )
    ramp_share: Share = Field(
        default=0.2,
        description="share of a round over which that weight ramps up after the warm-up",
    )
    warm_share: Share = Field(
        default=0.1, description="share of the first round that is supervised only"
    )
    peer_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="weight of the loss between student and friend"
    )
    corrected_weight: Share = Field(
        default=0.5, description="weight of CORRECTED pixels in the round that corrected them"
    )
    confidence_fallback: Share = Field(
        default=0.95, description="confidence threshold of a class with too few withheld regions"
    )
    confidence_precision: Share = Field(
        default=0.90,
        description="precision whose Wilson lower bound a confidence threshold must reach",
    )
    collapse_disagreement: Share = Field(
        default=0.01, description="friend-teacher disagreement below which the collapse guard warns"
    )
    dominance: Share = Field(
        default=0.98,
        description="share of one class in the pseudo-labels above which the guard warns",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EmdConfig:
    """Error-mask decoder (method: EMD)."""

    enabled: bool = Field(
        default=True, description="false: error is 1 - confidence, mixed with disagreement"
    )
    channels: Positive = Field(default=32, description="channels of its two 3x3 convolutions")
    weight: Annotated[float, Field(ge=0)] = Field(default=0.1, description="weight of its loss")
    dice: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="weight of an added soft-Dice loss"
    )
    stop_gradient: bool = Field(
        default=True, description="true: its loss does not reach the features it reads"
    )
    recall: Share = Field(
        default=0.80,
        description="error recall on withheld pixels that the suspect threshold must reach",
    )
    threshold_fallback: Share = Field(
        default=0.5, description="suspect threshold until enough withheld error pixels exist"
    )
    min_error_pixels: Positive = Field(
        default=200, description="withheld error pixels needed to calibrate that threshold"
    )
    min_error_regions: Positive = Field(
        default=5, description="withheld regions with errors needed to calibrate that threshold"
    )
    min_auroc: Share = Field(
        default=0.60,
        description="below this AUROC the error is 1 - confidence mixed with disagreement",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class PlarConfig:
    """Pseudo-label auto-refinement (method: class statistics and decision rule)."""

    rule: Literal["robust", "faithful", "knn", "none"] = Field(
        default="robust",
        description="robust: log-determinant, margin, gate; faithful: both distances agree; knn: "
        "votes of the nearest labelled pixels, margin, gate",
    )
    neighbours: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="knn: labelled pixels that vote on each pixel"
    )
    knn_backend: Literal["torch", "faiss"] = Field(
        default="torch",
        description="knn: what searches for neighbours, with the same result; faiss needs "
        "geohsal[faiss] and runs on the CPU",
    )
    kernel: Literal["auto", "torch", "torch-half", "triton"] = Field(
        default="auto",
        description="what scores pixels under the rules robust and faithful; all give the same "
        "decisions. auto: triton on a GPU that can run it; torch-half on other GPUs, and for 128 "
        "components or more on processors with bfloat16 instructions; else torch",
    )
    dim: Positive = Field(default=32, description="principal components of the features, at most")
    pixels_per_region: Positive = Field(
        default=64, description="pixels drawn per labelled region and class"
    )
    max_regions_per_class: Positive = Field(
        default=512, description="labelled regions per class that statistics visit, drawn by seed"
    )
    shrink_regions: Annotated[float, Field(ge=0)] = Field(
        default=10.0,
        description="R0: regions at which a class covariance counts half against the pooled",
    )
    eps: Annotated[float, Field(gt=0, le=0.1)] = Field(
        default=1e-4, description="ridge on covariances"
    )
    gate_alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="share of in-class pixels that the distance gate may reject"
    )
    margin_precision: Share = Field(
        default=0.90, description="precision whose Wilson lower bound the margin must reach"
    )
    margin_fallback: Annotated[float, Field(ge=0)] = Field(
        default=5.9, description="margin (2 ln 19) until withheld errors calibrate it"
    )
    min_regions: Positive = Field(
        default=3, description="labelled regions that a class needs before PLAR may assign it"
    )
    spatial_share: Share = Field(
        default=0.5,
        description="share of accepted neighbours (5x5) that must agree on a correction",
    )
    agreement: bool = Field(
        default=False, description="robust: also require the class among the two nearest by Euclid"
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        default=5, description="folds of regions for the gate"
    )
    refresh_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2, description="part of a round between two refreshes of the statistics"
    )
    corrected_cap: Share = Field(
        default=0.20,
        description="largest share of a scene's unlabelled pixels that may be CORRECTED",
    )
    flow_cap: Share = Field(
        default=0.25,
        description="largest net change of a class by corrections, as a share of the class",
    )
    do_no_harm: bool = Field(
        default=True, description="abstain for a class where withheld pixels show no gain"
    )
    chunk_pixels: Annotated[int, Field(ge=64)] = Field(
        default=4096, description="pixels that the torch path scores at a time"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class QueryConfig:
    """Which regions a person is asked about."""

    strategy: Literal["plar", "random", "entropy", "margin", "least_confidence", "emd"] = Field(
        default="plar", description="acquisition function; plar: undecided after refinement"
    )
    budget: BudgetText = Field(
        default="200regions", description="budget where the command gives none"
    )
    region_px: Annotated[int, Field(ge=4)] = Field(default=32, description="side of a region cell")
    min_share: Share = Field(
        default=0.5, description="share of a cell that must be valid and unlabelled to be asked"
    )
    novel_weight: Annotated[float, Field(ge=0)] = Field(
        default=1.5, description="nu: weight of NOVEL"
    )
    disagree_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.25, description="eta: weight of TRUSTED pixels where teacher and friend differ"
    )
    exclusion: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="least distance of two regions' edges, in region sides"
    )
    tile_cap: Share = Field(
        default=0.05, description="largest share of a round's regions from one tile"
    )
    diversity: Annotated[float, Field(ge=1)] = Field(
        default=5.0, description="k-centre chooses among this multiple of the best-scored regions"
    )
    audit_share: Share = Field(
        default=0.10, description="share of the budget for random audit regions"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class CostConfig:
    """Minutes of review: what holds until enough reviews have been timed."""

    seconds_per_region: Annotated[float, Field(ge=0)] = Field(
        default=20.0, description="per region"
    )
    seconds_per_answer: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="per answer polygon"
    )
    learn: bool = Field(
        default=True, description="learn both from the reviewers' time stamps once there are enough"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class OutputConfig:
    """Polygons for people."""

    sieve_px: Annotated[int, Field(ge=0)] = Field(
        default=8, description="patches smaller than this many pixels join their largest neighbour"
    )
    context_px: Annotated[int, Field(ge=0)] = Field(
        default=16, description="pseudo_labels reach this far around each query region"
    )
    simplify_px: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="tolerance of gap-free simplification on export, in pixels; 0 keeps edges",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Config:
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of everything random")
    tile: TileConfig = dataclasses.field(default_factory=TileConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    ssl: SslConfig = dataclasses.field(default_factory=SslConfig)
    emd: EmdConfig = dataclasses.field(default_factory=EmdConfig)
    plar: PlarConfig = dataclasses.field(default_factory=PlarConfig)
    query: QueryConfig = dataclasses.field(default_factory=QueryConfig)
    cost: CostConfig = dataclasses.field(default_factory=CostConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        if 2 * self.model.window_overlap_px > self.model.window_px:
            raise ValueError(
                "model.window_overlap_px may be at most half of model.window_px "
                f"({self.model.window_overlap_px} of {self.model.window_px})"
            )
        low, high = self.augment.scale
        if not 0 < low <= high:
            raise ValueError(
                f"augment.scale must be two positive rising numbers, not {low}, {high}"
            )


_ADAPTER = TypeAdapter(Config)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested mapping of all settings, ready for YAML or JSON."""
    dumped: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return dumped


def config_from_dict(values: Mapping[str, Any], *, where: str) -> Config:
    """Checked settings from a nested mapping laid over the defaults.

    Raises:
        ConfigError: naming `where`, the key, what was found and what is allowed.
    """
    try:
        return _ADAPTER.validate_python(_tuples(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, known_keys())}") from None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values), default=str))  # type: ignore[no-any-return]


def explain(error: ValidationError, keys: Sequence[str] = ()) -> str:
    """One line for the first problems of a pydantic error, with a suggestion for unknown keys."""
    from difflib import get_close_matches

    lines = []
    for item in error.errors()[:3]:
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            leaf = str(item["loc"][-1])
            near = get_close_matches(leaf, [key.rsplit(".", 1)[-1] for key in keys], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"unknown key {place!r}{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            found = item.get("input")
            if item["type"] in ("dataclass_type", "dict_type"):
                message = "must be a mapping of keys"
            scalar = found is None or isinstance(found, str | int | float | bool)
            shown = f", found {_shown(found)}" if scalar and "found" not in message else ""
            if item["type"] == "missing":
                message, shown = "is missing", ""
            lines.append(f"{place + ': ' if place else ''}{message}{shown}")
    more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def known_keys() -> list[str]:
    """Dotted names of all settings."""
    return list(_flatten(config_to_dict(Config())))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_schema() -> dict[str, Any]:
    """JSON Schema of the settings: every key with type, default, bounds and description."""
    return _ADAPTER.json_schema()


def preset_text(name: str) -> str:
    """Text of a preset that ships with the package."""
    shipped = resources.files("geohsal") / "presets"
    if not shipped.is_dir():  # an editable install: the wheel would hold configs/ as presets/
        shipped = Path(__file__).parent.parent / "configs"
    return (shipped / f"{name}.yaml").read_text("utf-8")


def load_config(source: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Settings from a preset's name or a YAML file, then `a.b=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value out of range.
    """
    name = str(source)
    if name in PRESETS:
        text = preset_text(name)
    else:
        path = Path(source)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"config {name}: cannot be read ({error}); give a YAML file or one of the presets "
                f"{', '.join(PRESETS)}"
            ) from None
    values = parse_yaml_mapping(text, where=f"config {name}")
    for override in overrides:
        _apply_override(values, override)
    return config_from_dict(values, where=f"config {name}")


def parse_yaml_mapping(text: str, *, where: str) -> dict[str, Any]:
    """A YAML text that must be a mapping (safe loader).

    Raises:
        ConfigError: it is not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a mapping of keys, found {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    target = values
    for part in parts[:-1]:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {part!r} is a value, not a section")
        target = inner
    target[parts[-1]] = value
