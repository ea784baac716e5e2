"""Encoder, decoder and segmentation head by name, with the features that PLAR compares."""

from typing import NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geohsal.config import ModelConfig
from geohsal.errors import ConfigError

ARCHITECTURES = {
    "unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "fpn": smp.FPN,
    "deeplabv3plus": smp.DeepLabV3Plus,
}


class SegmenterOutput(NamedTuple):
    """Logits (batch, class, height, width) and features (batch, channel, height, width).

    Both are at the resolution of the input. Features are the decoder's output before the
    segmentation head, bilinear to pixels (design: PLAR features).
    """

    logits: Tensor
    features: Tensor


class PixelStem(nn.Module):
    """A full-resolution path: two convolutions that never lose a single pixel's spectrum."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(batch, band, height, width) to (batch, channel, height, width)."""
        result: Tensor = self.layers(image)
        return result


class Decoder(nn.Module):
    """Decoder and head on top of an encoder; the friend of kind `head` is a second one of these."""

    def __init__(self, network: nn.Module, *, in_channels: int, classes: int, pixels: int) -> None:
        super().__init__()
        self.decoder = _part(network, "decoder")
        channels = decoder_channels(network)
        self.pixel_stem = PixelStem(in_channels, pixels) if pixels else None
        self.channels = channels + pixels
        self.fuse = (
            nn.Sequential(
                nn.Conv2d(self.channels, self.channels, 1, bias=False),
                nn.BatchNorm2d(self.channels),
                nn.ReLU(inplace=True),
            )
            if pixels
            else nn.Identity()
        )
        self.head = nn.Conv2d(self.channels, classes, 1)

    def forward(
        self, image: Tensor, pyramid: list[Tensor], *, perturbed: int = 0
    ) -> SegmenterOutput:
        """Features and logits at the resolution of `image`.

        Args:
            image: (batch, band, height, width).
            pyramid: the encoder's feature maps.
            perturbed: the last so many images are decoded from half of the channels of each
                feature map, the pixel stem's too (the first level is the image: no decoder
                reads it).
        """
        if perturbed:
            pyramid = [pyramid[0], *(drop_channels(level, perturbed) for level in pyramid[1:])]
        features = self.decoder(pyramid)
        if features.shape[-2:] != image.shape[-2:]:
            features = F.interpolate(
                features, size=image.shape[-2:], mode="bilinear", align_corners=False
            )
        if self.pixel_stem is not None:
            pixels = self.pixel_stem(image)
            if perturbed:
                pixels = drop_channels(pixels, perturbed)
            features = self.fuse(torch.cat([features, pixels], dim=1))
        return SegmenterOutput(logits=self.head(features), features=features)


def drop_channels(features: Tensor, images: int) -> Tensor:
    """Dropout2d(0.5) on the last so many images of a batch, also in evaluation mode."""
    first = len(features) - images
    changed = F.dropout2d(features[first:], 0.5, training=True)
    return torch.cat([features[:first], changed])


class Segmenter(nn.Module):
    """One whole network: image in, logits and features out."""

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> SegmenterOutput:
        """(batch, band, height, width); height and width multiples of the encoder's stride."""
        output: SegmenterOutput = self.decoder(image, self.encoder(image))
        return output


def decoder_channels(network: nn.Module) -> int:
    """Channels that a segmentation-models-pytorch network hands to its head."""
    for module in _part(network, "segmentation_head").modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise AssertionError("a segmentation head without a convolution")


def _part(network: nn.Module, name: str) -> nn.Module:
    """A named module of a network, typed as one."""
    part = getattr(network, name)
    assert isinstance(part, nn.Module)
    return part


def build_network(
    config: ModelConfig, *, in_channels: int, classes: int, encoder: str
) -> nn.Module:
    """The segmentation-models-pytorch network of these settings, randomly initialised.

    Raises:
        ConfigError: the encoder's name is unknown or does not go with the architecture.
    """
    options: dict[str, object] = {}
    last, depth = config.decoder_channels, config.encoder_depth
    if config.arch in ("unet", "unetplusplus"):
        options["decoder_channels"] = tuple(
            min(256, last * 2 ** (depth - 1 - stage)) for stage in range(depth)
        )
    elif config.arch == "fpn":
        options["decoder_segmentation_channels"] = last
    else:
        options["decoder_channels"] = last
    try:
        network: nn.Module = ARCHITECTURES[config.arch](
            encoder_name=encoder,
            encoder_depth=depth,
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            **options,
        )
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ConfigError(
            f"model.encoder {encoder!r} cannot be built with model.arch {config.arch!r} and "
            f"encoder_depth {depth} ({reason}); use an encoder name of "
            "segmentation-models-pytorch, or tu-<name> for timm"
        ) from None
    return network


def build_segmenter(
    config: ModelConfig, *, in_channels: int, classes: int, encoder: str | None = None
) -> Segmenter:
    """A randomly initialised segmenter; `encoder` overrides the configured one (friend: arch)."""
    name = encoder or config.encoder
    network = build_network(config, in_channels=in_channels, classes=classes, encoder=name)
    decoder = Decoder(
        network, in_channels=in_channels, classes=classes, pixels=config.pixel_channels
    )
    return Segmenter(_part(network, "encoder"), decoder)


def build_decoder(config: ModelConfig, *, in_channels: int, classes: int) -> Decoder:
    """A second decoder for the configured encoder (friend: head)."""
    network = build_network(
        config, in_channels=in_channels, classes=classes, encoder=config.encoder
    )
    return Decoder(network, in_channels=in_channels, classes=classes, pixels=config.pixel_channels)
