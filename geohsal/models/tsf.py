"""TSF: student and friend learn by gradient, the teacher is the student's running mean."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geohsal.config import Config
from geohsal.models.error_mask import ErrorMaskDecoder
from geohsal.models.segmenter import Segmenter, SegmenterOutput, build_decoder, build_segmenter
from geohsal.models.weights import load_encoder_weights


class TsfOutput(NamedTuple):
    """What the inference networks say of an image; all at pixel resolution."""

    logits: Tensor
    features: Tensor
    friend_logits: Tensor | None
    error_logits: Tensor


EMBEDDING = 64
"""Length of the vectors that the contrastive loss compares."""


class TeacherStudentFriend(nn.Module):
    """Teacher, student, friend and error-mask decoder of one run (method: TSF).

    Without a friend `friend` is None. Of kind `head` it is a decoder on the student's encoder,
    otherwise a whole network of its own. `projection` is there only where the contrastive loss
    uses it; no model folder holds it, so it starts anew each round. `previous` is the last
    round's teacher where it labels (`label_by`).
    """

    def __init__(self, config: Config, *, bands: int, classes: int) -> None:
        super().__init__()
        model, ssl = config.model, config.ssl
        self.kind = ssl.friend if ssl.enabled else "none"
        self.student = build_segmenter(model, in_channels=bands, classes=classes)
        if model.weights is not None:
            load_encoder_weights(self.student.encoder, model.weights, name=model.encoder)
        self.friend: nn.Module | None = None
        if self.kind == "head":
            self.friend = build_decoder(model, in_channels=bands, classes=classes)
        elif self.kind == "peer":
            self.friend = build_segmenter(model, in_channels=bands, classes=classes)
            if model.weights is not None:
                load_encoder_weights(self.friend.encoder, model.weights, name=model.encoder)
        elif self.kind == "arch":
            self.friend = build_segmenter(
                model, in_channels=bands, classes=classes, encoder=ssl.friend_encoder
            )
        # nearly twice as fast for these convolutions, on CPUs and GPUs
        self.student.to(memory_format=torch.channels_last)
        if self.friend is not None:
            self.friend.to(memory_format=torch.channels_last)
        self.prior_shift: Tensor
        self.register_buffer("prior_shift", torch.zeros(classes))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.emd = ErrorMaskDecoder(
            features=self.student.decoder.channels,
            classes=classes,
            channels=config.emd.channels,
            stop_gradient=config.emd.stop_gradient,
        ).to(memory_format=torch.channels_last)
        width = self.student.decoder.channels
        self.projection: nn.Module | None = None
        if ssl.enabled and ssl.contrast_weight > 0:
            self.projection = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, EMBEDDING)
            )
        self.previous: nn.Module | None = None

    def train(self, mode: bool = True) -> "TeacherStudentFriend":
        """The teacher, and the one before, never leave evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        if self.previous is not None:
            self.previous.eval()
        return self

    def label_by(self, teacher: nn.Module) -> None:
        """Keep a frozen copy of the last round's teacher: its labels are learned from.

        Raises:
            RuntimeError: it has another architecture.
        """
        previous = copy.deepcopy(self.teacher)
        previous.load_state_dict(teacher.state_dict())
        self.previous = previous.requires_grad_(False).eval()

    @contextmanager
    def frozen(self) -> Iterator["InferenceNetworks"]:
        """The inference networks, with all norms and dropouts in evaluation mode for the block."""
        modal = [module for module in self.modules() if module.training]
        for module in modal:
            module.training = False
        try:
            yield self.inference_networks()
        finally:
            for module in modal:
                module.training = True

    def student_and_friend(
        self, image: Tensor, *, friend_sees: int, perturbed: int = 0
    ) -> tuple[SegmenterOutput, SegmenterOutput | None]:
        """Both gradient-trained networks on one batch; the encoder runs once for `head`.

        Args:
            image: (batch, band, height, width).
            friend_sees: the friend gets the first so many images.
            perturbed: the student decodes the last so many from perturbed features.
        """
        image = image.contiguous(memory_format=torch.channels_last)
        pyramid = self.student.encoder(image)
        student = self.student.decoder(image, pyramid, perturbed=perturbed)
        if self.friend is None:
            return student, None
        if self.kind == "head":
            shared = [level[:friend_sees] for level in pyramid]
            return student, self.friend(image[:friend_sees], shared)
        return student, self.friend(image[:friend_sees])

    @torch.no_grad()
    def update_teacher(self, *, step: int, ema_max: float) -> None:
        """theta_T <- a theta_T + (1 - a) theta_S, a = min(1 - 1/(t+1), a_max); buffers too."""
        rate = min(1.0 - 1.0 / (step + 1), ema_max)
        student = self.student.state_dict()
        for name, value in self.teacher.state_dict().items():
            if value.is_floating_point():
                value.lerp_(student[name].to(value.dtype), 1.0 - rate)
            else:
                value.copy_(student[name])

    def inference_networks(self, teacher: nn.Module | None = None) -> "InferenceNetworks":
        """Teacher, friend (a whole network also for `head`) and error-mask decoder.

        Args:
            teacher: what stands in for the teacher; default: the teacher itself.
        """
        friend: nn.Module | None = self.friend
        if self.kind == "head" and friend is not None:
            friend = Segmenter(self.student.encoder, friend)  # type: ignore[arg-type]
        labelling = self.teacher if teacher is None else teacher
        return InferenceNetworks(labelling, friend, self.emd, prior_shift=self.prior_shift)


class InferenceNetworks(nn.Module):
    """What a model folder holds: the teacher is the product, the friend a second opinion.

    `prior_shift` [C] is added to the logits of both (refine.priors); a buffer, so that it travels
    with the weights.
    """

    def __init__(
        self,
        teacher: nn.Module,
        friend: nn.Module | None,
        emd: nn.Module,
        *,
        prior_shift: Tensor,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.friend = friend
        self.emd = emd
        self.prior_shift: Tensor
        self.register_buffer("prior_shift", prior_shift)

    def forward(self, image: Tensor) -> TsfOutput:
        """(batch, band, height, width), normalised bands, to logits, features, error logits."""
        image = image.contiguous(memory_format=torch.channels_last)
        output = self.teacher(image)
        logits = self.shifted(output.logits)
        friend = self.shifted(self.friend(image).logits) if self.friend is not None else None
        error = self.emd(output.features, logits, friend)
        return TsfOutput(
            logits=logits,
            features=output.features,
            friend_logits=friend,
            error_logits=error,
        )

    def shifted(self, logits: Tensor) -> Tensor:
        """Logits (batch, class, height, width) under the pool's class shares."""
        return logits + self.prior_shift[:, None, None].to(logits.dtype)


def build_inference_networks(config: Config, *, bands: int, classes: int) -> InferenceNetworks:
    """Randomly initialised inference networks, to be filled from a model folder."""
    model, ssl = config.model, config.ssl
    kind = ssl.friend if ssl.enabled else "none"
    teacher = build_segmenter(model, in_channels=bands, classes=classes)
    friend: nn.Module | None = None
    if kind in ("head", "peer"):
        friend = build_segmenter(model, in_channels=bands, classes=classes)
    elif kind == "arch":
        friend = build_segmenter(
            model, in_channels=bands, classes=classes, encoder=ssl.friend_encoder
        )
    emd = ErrorMaskDecoder(
        features=teacher.decoder.channels,
        classes=classes,
        channels=config.emd.channels,
        stop_gradient=config.emd.stop_gradient,
    )
    networks = InferenceNetworks(teacher, friend, emd, prior_shift=torch.zeros(classes))
    return networks.to(memory_format=torch.channels_last)
