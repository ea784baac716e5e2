"""Settings of what corrects pseudo-labels: error mask and PLAR."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, Positive, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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
        description="below this AUROC the error is 1 - confidence mixed with disagreement, and "
        "plar spreads its questions over the whole pool",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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
        default=0.80,
        description="share of right flips whose Wilson lower bound the margin must reach",
    )
    margin_fallback: Annotated[float, Field(ge=0)] = Field(
        default=5.9, description="margin (2 ln 19) until unseen flips calibrate it"
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
        default=True,
        description="abstain for a class where neither withheld pixels nor the answers to earlier "
        "rounds prove a gain",
    )
    chunk_pixels: Annotated[int, Field(ge=64)] = Field(
        default=4096, description="pixels that the torch path scores at a time"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class PriorConfig:
    """Class shares of the pool, which labels do not have (refine.priors), or even ones.

    They shift logits, and weigh the classes of PLAR under `plar.rule=robust`.
    """

    source: Literal["answers", "em", "uniform", "none"] = Field(
        default="answers",
        description="where the shares come from: answers, the answered regions within the classes "
        "that the teacher had named (none before the first review); em, expectation maximisation "
        "on the pool's probabilities; uniform, all classes alike from the first round on, for maps "
        "in which a rare class counts as much as a common one (mIoU); none switches the shift off",
    )
    strength: Share = Field(
        default=0.5,
        description="part of the log ratio of these to taught shares that is added to the logits; "
        "towards 1, answers and em favour overall accuracy, uniform favours rare classes",
    )
    min_regions: Positive = Field(
        default=10, description="answers: answered regions needed before anything is shifted"
    )
    windows: Positive = Field(
        default=16, description="em: inference windows of the pool that are looked at"
    )
