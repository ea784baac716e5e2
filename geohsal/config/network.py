"""Settings of tiles and of the network."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, Positive


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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
        "knows (looked for in the folder that GEOHSAL_WEIGHTS names, then in a network), or the "
        "path of a local .safetensors file",
    )
    window_px: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        default=256, description="side of the inference window; belongs to the model"
    )
    window_overlap_px: Annotated[int, Field(ge=0)] = Field(
        default=64,
        description="overlap of neighbouring inference windows, where logits are blended",
    )
