"""YAML that grows while it is read is refused before it has grown."""

import time
from pathlib import Path

import pytest
import yaml

from geohsal.config.cluster import load_cluster
from geohsal.config.yaml_text import MAX_MERGED, yaml_values
from geohsal.errors import ConfigError, ManifestError
from geohsal.io.manifest_text import read_yaml


def merging(levels: int) -> str:
    """Mappings within each other, each of which merges the one in it ten times."""
    text = "&a0 {k: 1, l: 2}"
    for level in range(1, levels):
        text = f"&a{level} {{<<: [{text}{f', *a{level - 1}' * 9}]}}"
    return text


def test_merges_that_multiply_are_refused_at_once_in_one_line(tmp_path: Path) -> None:
    text = merging(9)
    path = tmp_path / "cluster.yaml"
    path.write_text(text, "utf-8")
    began = time.monotonic()
    with pytest.raises(ConfigError) as of_settings:
        load_cluster(path)
    with pytest.raises(ManifestError) as of_manifest:
        read_yaml(text, where="m.yaml")
    assert time.monotonic() - began < 2
    for error in (of_settings, of_manifest):
        said = str(error.value)
        assert "its merge keys stand for more than 500,000 pairs" in said
        assert "\n" not in said


def test_merges_side_by_side_count_together() -> None:
    pairs = ", ".join(f"k{number}: 0" for number in range(1000))
    uses = "\n".join(f"- {{<<: *a, own: {number}}}" for number in range(MAX_MERGED // 1000 + 1))
    with pytest.raises(yaml.YAMLError, match="merge keys stand for more than"):
        yaml_values(f"- &a {{{pairs}}}\n{uses}")


def test_merges_mean_what_they_always_meant() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], z: 4}"
    assert yaml_values(text)["c"] == {"x": 1, "y": 3, "z": 4}
    assert yaml_values(merging(3)) == {"k": 1, "l": 2}


def test_a_mapping_that_merges_itself_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        yaml_values("a: &a {x: 1, <<: *a}")
