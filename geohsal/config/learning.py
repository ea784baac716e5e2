"""Settings of a round of training: optimiser, augmentation, teacher, student, friend."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, Positive, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainConfig:
    """One round of training."""

    steps: Positive = Field(default=8000, description="optimiser steps per round")
    crop_px: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        default=256, description="side of a training crop in pixels"
    )
    batch_labelled: Positive = Field(
        default=8, description="labelled crops per step, over all processes"
    )
    batch_unlabelled: Positive = Field(
        default=8, description="unlabelled crops per step, over all processes"
    )
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
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Field(
        default=10.0,
        description="minutes after which state is also saved inside a part; 0: only after parts",
    )
    heldout_share: Share = Field(
        default=0.2,
        description="share of labelled regions withheld from the supervised loss, another fold "
        "each round: error targets and thresholds come from them",
    )
    heldout_fewest: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="where that share of the labelled regions is less than this many, none are "
        "withheld: so few prove nothing, and learning needs them more",
    )
    restart: bool = Field(
        default=False, description="start a round from the initial weights, not from the last round"
    )
    loader_workers: Annotated[int, Field(ge=0)] = Field(
        default=4, description="processes that read crops; 0 reads in the training process"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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
        default=0.5,
        description="strong: probability that a crop takes part of another one (ssl.class_mix)",
    )
    labelled_gain: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="gain and offset range for labelled crops"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SslConfig:
    """Teacher, student, friend (method: TSF); `geohsal.training.pseudo_labels` has the switches."""

    enabled: bool = Field(
        default=True, description="false: supervised loss only (teacher is still EMA)"
    )
    first_round: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="rounds before this one are supervised only: student and friend learn from "
        "labels alone",
    )
    consistency: Literal["ema", "fixmatch", "unimatch"] = Field(
        default="ema",
        description="who labels the weak view that the student learns from on strong ones. ema: "
        "the teacher (ssl.teacher); fixmatch: the student itself, one strong view; unimatch: the "
        "student itself, two strong views and the weak one with half of its features dropped. The "
        "model saved is the EMA teacher in all cases",
    )
    teacher: Literal["ema", "previous"] = Field(
        default="ema",
        description="consistency ema: who the teacher is. ema: the running mean of the student; "
        "previous: the last round's model, frozen (self-training); where there is none, as in "
        "round 0, it is as ema",
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
        default=0.1,
        description="share of the first round, and with train.restart of each, that is supervised "
        "only",
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
    class_mix: Literal["cutmix", "classmix", "none"] = Field(
        default="cutmix",
        description="what strong views take from another crop. cutmix: a box; classmix: half of "
        "its classes by pseudo-label, rare ones rather; none: nothing",
    )
    contrast_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="weight of a contrastive loss on labelled and trusted pixels, read through a "
        "projection head that starts anew each round; 0: no such head",
    )
    probe_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="weight of soft labels from a linear classifier on fixed features (bands, "
        "their windows, the first feature maps of model.weights), fitted anew each round to its "
        "labels; 0: no such classifier",
    )
    collapse_disagreement: Share = Field(
        default=0.01, description="friend-teacher disagreement below which the collapse guard warns"
    )
    dominance: Share = Field(
        default=0.98,
        description="share of one class in the pseudo-labels above which the guard warns",
    )

    def __post_init__(self) -> None:
        if self.teacher == "previous" and self.consistency != "ema":
            raise ValueError(
                f"ssl.teacher previous needs ssl.consistency ema: under {self.consistency} the "
                "student labels for itself"
            )

    def active(self, round_index: int) -> bool:
        """Whether a round learns from unlabelled pixels."""
        return self.enabled and round_index >= self.first_round
