"""Settings of what people are asked, what it costs and what they are given."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, BudgetText, Positive, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class QueryConfig:
    """Which regions a person is asked about."""

    strategy: Annotated[str, Field(min_length=1)] = Field(
        default="plar",
        description="acquisition function; plar: undecided after refinement; or random, entropy, "
        "margin, least_confidence, bald, coreset, badge, ripu, emd, or the name of an entry point "
        "of the group geohsal.acquisition",
    )
    aggregate: Literal["strategy", "sum", "mean"] = Field(
        default="strategy",
        description="worth of a region from its pixels: their sum per cost, their mean, or as the "
        "strategy has it (plar and emd: sum; the others: mean)",
    )
    budget: BudgetText = Field(
        default="200regions", description="budget where the command gives none"
    )
    region_unit: Literal["grid", "superpixel", "window"] = Field(
        default="grid",
        description="regions: cells of a grid, superpixels of that size, windows every half side",
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
        default=5.0,
        description="plar: k-centre chooses among this multiple of the best-scored regions (among "
        "the whole pool, or 131,072 of it by lot, while the error mask is not proven)",
    )
    audit_share: Share = Field(
        default=0.10, description="share of the budget for random audit regions"
    )
    mc_passes: Annotated[int, Field(ge=2)] = Field(
        default=8, description="bald: passes through the head, each with other channels dropped"
    )
    mc_dropout: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="bald: share of feature channels that a pass drops"
    )
    ripu_px: Annotated[int, Field(ge=3)] = Field(
        default=3, description="ripu: side of the window around a pixel (odd)"
    )

    def __post_init__(self) -> None:
        if self.ripu_px % 2 == 0:
            raise ValueError(f"ripu_px must be odd, not {self.ripu_px}")
        if self.region_unit == "window" and self.region_px % 2:
            raise ValueError(
                f"region_px must be even where region_unit is window, not {self.region_px}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class StopConfig:
    """When another round is no longer worth it; geohsal tells and never stops by itself."""

    rounds: Positive = Field(
        default=2, description="the last so many rounds must all speak for stopping"
    )
    min_change: Share = Field(
        default=0.005, description="share of the map that a round must change to be worth it"
    )
    min_gain: Share = Field(
        default=0.005,
        description="gain per round, in audit error, val mIoU or undecided share, that is worth it",
    )
    min_audit_regions: Positive = Field(
        default=10,
        description="answered audit regions of those rounds, without which none may stop",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
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
