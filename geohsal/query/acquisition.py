"""Acquisition functions by name: score a pixel, aggregate over a region, select a batch.

Others add their own by an entry point of the group `geohsal.acquisition` that names an
`Acquisition`; its name there is what `query.strategy` takes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geohsal.config import QueryConfig
from geohsal.errors import ConfigError
from geohsal.query import scores, selectors
from geohsal.query.aggregates import AGGREGATES, Aggregate, mean, sum_per_cost
from geohsal.query.evidence import PixelEvidence
from geohsal.query.regions import Candidates

GROUP = "geohsal.acquisition"
"""Entry points that third parties register acquisitions under."""

Doubt = Literal["entropy", "top2_margin"]
"""Maps of doubt that only some scores read; the others are there for every score."""

DOUBTS: frozenset[Doubt] = frozenset({"entropy", "top2_margin"})

Need = Literal["information", "embeddings", "labelled"]
"""What costs extra to know: mutual information of pixels, gradient embeddings of regions, mean
features of the labelled regions."""


def _none(config: QueryConfig) -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """One strategy: three stages that know nothing of each other, and what they need.

    `score` sees a window of a scene with `halo` pixels around it (fewer at the scene's edge): as
    many as its formula looks at, so that the map does not depend on the windows. Of the maps of
    doubt it gets those in `doubts`; the others are 0. `aggregate` gives way to `query.aggregate`
    if `settable`; `words` tells a reviewer why, from the mean of the score map over the region.
    """

    name: str
    score: scores.PixelScore
    aggregate: Aggregate
    select: selectors.Select
    words: Callable[[float], str]
    needs: frozenset[Need] = frozenset()
    settable: bool = True
    halo: Callable[[QueryConfig], int] = _none
    doubts: frozenset[Doubt] = DOUBTS

    def pixels(self, evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
        """The score map (row, col) of a window.

        Raises:
            ConfigError: a plugin's map has another shape, or holds negative numbers or NaN.
        """
        found = np.asarray(self.score(evidence, config), dtype=np.float32)
        if found.shape != evidence.state.shape or not (np.isfinite(found) & (found >= 0)).all():
            raise ConfigError(
                f"query.strategy {self.name!r}: its score map of scene {evidence.scene_id} must be "
                f"{evidence.state.shape} finite numbers from 0, found {found.shape} from "
                f"{found.min(initial=np.inf)} to {found.max(initial=-np.inf)}; repair the plugin"
            )
        return found

    def worth(
        self, candidates: Candidates, costs: NDArray[np.float64], *, config: QueryConfig
    ) -> NDArray[np.float64]:
        """Worth of each candidate, by the strategy's own aggregate or that of the settings."""
        chosen = self.aggregate
        if self.settable and config.aggregate != "strategy":
            chosen = AGGREGATES[config.aggregate]
        return chosen(candidates, costs)


_BUILT_IN = (
    Acquisition(
        name="plar",
        score=scores.undecided,
        aggregate=sum_per_cost,
        select=selectors.diverse,
        words="undecided: mean {:.2f}".format,
        doubts=frozenset(),
    ),
    Acquisition(
        name="random",
        score=scores.alike,
        aggregate=mean,
        select=selectors.by_lot,
        words=lambda value: "random choice",
        settable=False,
        doubts=frozenset(),
    ),
    Acquisition(
        name="entropy",
        score=scores.entropy,
        aggregate=mean,
        select=selectors.best_first,
        words="mean entropy {:.2f}".format,
        doubts=frozenset({"entropy"}),
    ),
    Acquisition(
        name="margin",
        score=scores.margin,
        aggregate=mean,
        select=selectors.best_first,
        words="two best classes close together: mean {:.2f}".format,
        doubts=frozenset({"top2_margin"}),
    ),
    Acquisition(
        name="least_confidence",
        score=scores.least_confidence,
        aggregate=mean,
        select=selectors.best_first,
        words=lambda value: f"mean confidence {1 - value:.2f}",
        doubts=frozenset(),
    ),
    Acquisition(
        name="bald",
        score=scores.information,
        aggregate=mean,
        select=selectors.best_first,
        words="draws of the network differ: mean information {:.3f}".format,
        needs=frozenset({"information"}),
        doubts=frozenset(),
    ),
    Acquisition(
        name="coreset",
        score=scores.alike,
        aggregate=mean,
        select=selectors.core_set,
        words=lambda value: "unlike what is labelled or asked",
        needs=frozenset({"labelled"}),
        settable=False,
        doubts=frozenset(),
    ),
    Acquisition(
        name="badge",
        score=scores.least_confidence,
        aggregate=mean,
        select=selectors.k_means_plus_plus,
        words=lambda value: f"unsure in a way of its own: mean confidence {1 - value:.2f}",
        needs=frozenset({"embeddings"}),
        settable=False,
        doubts=frozenset(),
    ),
    Acquisition(
        name="ripu",
        score=scores.impurity_times_entropy,
        aggregate=mean,
        select=selectors.best_first,
        words="mixed and unsure: mean {:.3f}".format,
        halo=lambda config: config.ripu_px // 2,
        doubts=frozenset({"entropy"}),
    ),
    Acquisition(
        name="emd",
        score=scores.predicted_error,
        aggregate=sum_per_cost,
        select=selectors.best_first,
        words="predicted error {:.2f}".format,
        doubts=frozenset(),
    ),
)

ACQUISITIONS: Mapping[str, Acquisition] = MappingProxyType({item.name: item for item in _BUILT_IN})
"""The built-in acquisitions, by the name in `query.strategy`."""


def acquisition(name: str) -> Acquisition:
    """The acquisition of this name: built in, or from an entry point, loaded only when asked for.

    Raises:
        ConfigError: nobody knows the name, or its plugin cannot be loaded.
    """
    if name in ACQUISITIONS:
        return ACQUISITIONS[name]
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in plugins:
        known = ", ".join([*ACQUISITIONS, *sorted(set(plugins) - set(ACQUISITIONS))])
        raise ConfigError(f"query.strategy {name!r}: is not known; use one of {known}")
    return _load(plugins[name])


def _load(entry: EntryPoint) -> Acquisition:
    where = f"query.strategy {entry.name!r}: the plugin {entry.value}"
    try:
        found = entry.load()
    except Exception as error:  # whatever the plugin's own code raises on import
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(f"{where} cannot be loaded ({reason}); repair or remove it") from None
    if not isinstance(found, Acquisition):
        raise ConfigError(
            f"{where} is a {type(found).__name__}, not a geohsal.query.acquisition.Acquisition; "
            "repair or remove it"
        )
    return found
