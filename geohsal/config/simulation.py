"""Settings of a simulation: the section `simulate` of an otherwise ordinary settings file."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from geohsal.config.fields import STRICT, BudgetText, Positive, Share
from geohsal.config.loading import (
    PRESETS,
    SIMULATE,
    Config,
    config_from_dict,
    explain,
    override,
    read_settings,
    shipped_names,
)
from geohsal.config.methods import FOREST, FULL, OURS, find_method
from geohsal.errors import ConfigError

BENCHMARKS = "bench_"
"""What the names of the simulations that ship with the package begin with."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class OracleConfig:
    """Faults of the simulated reviewer."""

    label: Share = Field(default=0.0, description="share of class patches given a wrong class")
    skip: Share = Field(default=0.0, description="share of regions left as skipped")
    slop_px: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="pixels by which borders between classes are off, at most"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class CellConfig:
    """One method with the strategies that it asks by; `forest` and `full` have none."""

    method: str = Field(description="name in methods.yaml, or forest, or full")
    strategies: tuple[str, ...] = Field(
        default=(), description="acquisition functions, as query.strategy"
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SimulateConfig:
    """What is replayed: rounds, seeds, budget, oracle, and methods by strategies."""

    rounds: Positive = Field(
        description="rounds of training: 3 trains rounds 0, 1 and 2, asks after 0 and 1 only"
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        description="seeds of settings, blocks and oracle; each is a repetition"
    )
    budget: BudgetText = Field(description="what each round may ask, as query.budget")
    initial: BudgetText | None = Field(
        default=None,
        description="cells drawn by lot and answered before round 0, in regions, px or %; they "
        "count as spent. Without it round 0 learns from the manifest's labels",
    )
    noise: OracleConfig = dataclasses.field(default_factory=OracleConfig)
    cells: Annotated[tuple[CellConfig, ...], Field(min_length=1)] = Field(
        description="methods and strategies in the order of work"
    )
    keep: Literal["results", "models"] = Field(
        default="results",
        description="results: delete models and rasters of cells that are finished; models: keep",
    )


_ADAPTER = TypeAdapter(SimulateConfig)


def benchmark_names() -> tuple[str, ...]:
    """Names of the simulations that ship with the package."""
    return shipped_names(BENCHMARKS)


def load_simulation(
    source: str | Path, *, overrides: Sequence[str] = ()
) -> tuple[Config, SimulateConfig]:
    """Settings of the runs, and of their simulation, from a file or the name of a benchmark.

    Overrides are `a.b=value`, also `simulate.rounds=2`. What a method names wins over both.

    Raises:
        ConfigError: the file is missing or not YAML, has no section `simulate`, a key or method
            is unknown, a value out of range.
    """
    where = f"config {source}"
    values = override(read_settings(source, presets=(*benchmark_names(), *PRESETS)), overrides)
    section = values.pop(SIMULATE, None)
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{where}: has no section {SIMULATE!r}; give it rounds, seeds, budget and cells "
            f"(examples: {', '.join(benchmark_names())})"
        )
    config = config_from_dict(values, where=where)
    try:
        simulate = _ADAPTER.validate_python(dict(section))
    except ValidationError as error:
        raise ConfigError(f"{where}: {SIMULATE}: {explain(error, _keys())}") from None
    _check(simulate, where=where)
    return config, simulate


def simulation_to_dict(simulate: SimulateConfig) -> dict[str, Any]:
    """Plain nested mapping of the section, ready for JSON."""
    dumped: dict[str, Any] = _ADAPTER.dump_python(simulate, mode="json")
    return dumped


def _keys() -> list[str]:
    sections = (SimulateConfig, CellConfig, OracleConfig)
    return [field.name for section in sections for field in dataclasses.fields(section)]


def _check(simulate: SimulateConfig, *, where: str) -> None:
    if len(set(simulate.seeds)) < len(simulate.seeds):
        raise ConfigError(f"{where}: {SIMULATE}.seeds: a seed stands twice; each is one repetition")
    for cell in simulate.cells:
        alone = cell.method in (FOREST, FULL)
        if not alone:
            try:
                find_method(cell.method)
            except ConfigError as error:
                raise ConfigError(
                    f"{where}: {SIMULATE}.cells: {error}; besides {FOREST} and {FULL}"
                    if "known" in str(error)
                    else f"{where}: {SIMULATE}.cells: {error}"
                ) from None
        if alone == bool(cell.strategies):
            what = "has no strategies of its own" if alone else "needs strategies"
            raise ConfigError(f"{where}: {SIMULATE}.cells: method {cell.method!r} {what}")
    methods = [cell.method for cell in simulate.cells]
    if FOREST in methods and OURS not in methods:
        raise ConfigError(
            f"{where}: {SIMULATE}.cells: {FOREST} learns from the labels that {OURS} asked for; "
            f"add a cell with method {OURS}"
        )
