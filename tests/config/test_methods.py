"""Named methods and the section of a simulation: what they mean and what is refused."""

from pathlib import Path

import pytest
import yaml
from tiny_run import geohsal

from geohsal.config import PRESETS, load_config
from geohsal.config.methods import FOREST, FULL, OURS, find_method, load_methods, with_method
from geohsal.config.simulation import benchmark_names, load_simulation
from geohsal.errors import ConfigError

SECTION = {
    "rounds": 2,
    "seeds": [0, 1],
    "budget": "1%",
    "cells": [{"method": "geohsal", "strategies": ["plar", "random"]}, {"method": "forest"}],
}


def _write(path: Path, section: object, **settings: object) -> Path:
    path.write_text(yaml.safe_dump({**settings, "simulate": section}), "utf-8")
    return path


def test_a_method_is_laid_over_a_file_and_overrides_lie_above_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("ssl: {friend: peer, ema_max: 0.9}\nplar: {dim: 8}\n", "utf-8")
    layer = find_method("mean_teacher").settings
    found = load_config(path, layer=layer, overrides=["plar.rule=knn"])
    assert (found.ssl.friend, found.ssl.ema_max, found.emd.enabled) == ("none", 0.9, False)
    assert (found.plar.rule, found.plar.dim) == ("knn", 8)


@pytest.mark.parametrize("name", load_methods())
def test_every_method_holds_together_with_every_preset(name: str) -> None:
    assert name not in (FOREST, FULL)
    for preset in PRESETS:
        base = load_config(preset)
        assert (with_method(base, name) == base) == (name == OURS)


def test_a_misspelt_method_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"no method 'mean_techer'; did you mean 'mean_teach"):
        find_method("mean_techer")


def test_the_command_line_shows_a_methods_settings_and_names_them_in_the_help() -> None:
    shown = geohsal("config", "show", "-c", "cpu-small", "--method", "supervised").stdout
    values = yaml.safe_load(shown)
    assert (values["ssl"]["enabled"], values["plar"]["rule"]) == (False, "none")
    assert "plar_faithful" in geohsal("train", "--help").stdout
    assert "did you mean" in geohsal("config", "show", "--method", "tsf_em", code=2).stderr


@pytest.mark.parametrize("name", benchmark_names())
def test_every_shipped_benchmark_can_be_read(name: str) -> None:
    _, simulation = load_simulation(name)
    assert simulation.rounds > 1
    assert len(simulation.seeds) >= 3


def test_settings_and_section_are_read_apart_and_overridden_together(tmp_path: Path) -> None:
    path = _write(tmp_path / "s.yaml", SECTION, train={"steps": 7})
    config, simulation = load_simulation(
        path, overrides=["simulate.rounds=4", "plar.dim=9", "simulate.noise.label=0.2"]
    )
    assert (config.train.steps, config.plar.dim) == (7, 9)
    assert (simulation.rounds, simulation.seeds, simulation.noise.label) == (4, (0, 1), 0.2)
    assert simulation.cells[0].strategies == ("plar", "random")


def test_other_commands_say_that_a_file_is_a_simulation(tmp_path: Path) -> None:
    path = _write(tmp_path / "s.yaml", SECTION)
    with pytest.raises(ConfigError, match="section 'simulate', so it is for geohsal simulate"):
        load_config(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"round": 3}, "unknown key 'round'; did you mean 'rounds'?"),
        ({"noise": {"slop": 3}}, "unknown key 'noise.slop'; did you mean 'slop_px'?"),
        ({"budget": "much"}, "budget: must be a number with a unit"),
        ({"rounds": 0}, "rounds: .*greater than or equal to 1"),
        ({"seeds": [1, 1]}, "a seed stands twice"),
        ({"cells": []}, "cells: .*at least 1 item"),
        ({"cells": [{"method": "fourest", "strategies": ["plar"]}]}, "no method 'fourest'"),
        ({"cells": [{"method": "geohsal"}]}, "method 'geohsal' needs strategies"),
        ({"cells": [{"method": "full", "strategies": ["plar"]}]}, "'full' has no strategies"),
        ({"cells": [{"method": "full"}, {"method": "forest"}]}, "add a cell with method geohsal"),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = _write(tmp_path / "s.yaml", SECTION | change)
    with pytest.raises(ConfigError, match=message) as refused:
        load_simulation(path)
    assert "\n" not in str(refused.value)


def test_a_file_without_the_section_is_refused_with_examples(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("seed: 1\n", "utf-8")
    with pytest.raises(ConfigError, match=r"has no section 'simulate'.*bench_zion_cpu"):
        load_simulation(path)


def test_a_preset_of_training_is_no_simulation() -> None:
    with pytest.raises(ConfigError, match=r"config cpu-small: has no section 'simulate'"):
        load_simulation("cpu-small")
