"""Whatever stands in a file that people write: it is read, or refused in one line."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from geohsal.config import Config, config_from_dict, load_config
from geohsal.config.simulation import load_simulation
from geohsal.errors import GeohsalError, RequestError
from geohsal.geo.budget import parse_budget, parse_share
from geohsal.io.decisions_csv import read_decisions, read_decisions_origin
from geohsal.io.ledger import read_ledger
from geohsal.io.manifest import Manifest, load_manifest

FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x.tif", "/etc/passwd", "a\nb", "{{x}}", "!!python/object", "train", "é"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

MANIFEST: dict[str, Any] = {
    "version": 1,
    "name": "town",
    "classes": [
        {"id": 0, "name": "water", "color": "#0000ff"},
        {"id": 1, "name": "land", "color": "#00ff00", "description": "dry"},
    ],
    "bands": ["red", "nir"],
    "blocks": {"size_px": 64, "buffer_px": 8, "shares": {"train": 0.8, "test": 0.2}, "seed": 0},
    "scenes": [
        {
            "id": "a",
            "image": "a.tif",
            "bands": {"red": 1, "nir": 2},
            "labels": {"path": "l.gpkg", "layer": "x", "field": "c", "values": {"W": "water"}},
            "truth": {"path": "t.tif", "values": {1: "water"}, "ignore": [0]},
            "split": "train",
            "nodata": 0,
            "crs": "EPSG:32632",
        },
        {"id": "b", "image": "b.tif", "split": "test"},
    ],
}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested lists and mappings."""
    found = [at] if at else []
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        found += places(value[key], (*at, key))
    return found


@st.composite
def mistakes(draw: st.DrawFn, values: dict[str, Any]) -> dict[str, Any]:
    """A mapping with up to three places changed, removed or added to."""
    broken = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(broken)))
        holder = broken
        for key in way:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del holder[last]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=6))] = draw(ANYTHING)
        else:
            holder[last] = draw(ANYTHING)
        if not places(broken):
            break
    return broken


def one_line(error: GeohsalError, name: str) -> None:
    text = str(error)
    assert name in text, text
    assert len(text.splitlines()) == 1, text
    assert len(text) < 2000


def test_the_manifest_that_is_broken_below_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(MANIFEST), "utf-8")
    assert [scene.scene_id for scene in load_manifest(path).scenes] == ["a", "b"]


@FILES
@given(mistakes(MANIFEST))
@example({**MANIFEST, "classes": ["\r\u2028line"]})
def test_any_manifest_is_read_or_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    try:
        found = load_manifest(path)
    except RequestError as error:
        one_line(error, "m.yaml")
    else:
        assert isinstance(found, Manifest)
        assert all(scene.scene_id.replace("-", "_").isidentifier() or scene.scene_id[0].isdigit()
                   for scene in found.scenes)  # fmt: skip


@FILES
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(content)
    readers = (
        load_manifest,
        load_config,
        load_simulation,
        read_decisions,
        read_decisions_origin,
        read_ledger,
    )
    for reader in readers:
        try:
            reader(path)
        except GeohsalError as error:
            one_line(error, "any.txt")


@given(
    st.dictionaries(
        st.sampled_from(["tile", "model", "train", "ssl", "emd", "plar", "query", "seed", "x"]),
        ANYTHING | st.dictionaries(st.sampled_from(["steps", "lr", "arch", "rule"]), ANYTHING),
        max_size=4,
    )
)
def test_any_settings_are_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        found = config_from_dict(values, where="config x")
    except RequestError as error:
        one_line(error, "config x")
    else:
        assert isinstance(found, Config)


@given(st.text(max_size=20), st.integers(0, 10**9), st.booleans())
def test_any_budget_is_understood_or_refused(text: str, pixels: int, local: bool) -> None:
    for parse in (
        lambda: parse_budget(text, pool_pixels=pixels, local=local),
        lambda: parse_share(text, name="--overlap"),
    ):
        with contextlib.suppress(RequestError):
            parse()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch hacked']",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "<<: {version: 1}\n<<: {version: 2}",
        "version: 1\nversion: 1",
        "&a [" * 2000,
        "{" * 3000,
        "a: !!binary AAAA",
        "%YAML 9.9\n---\na: 1",
        "\ufeffversion: 1",
        "\n".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10 if n else ['x'] * 10)}]"
            for n in range(12)
        ),
        "when: 2026-99-99",
    ],
    ids=range(12),
)
def test_tricks_of_yaml_do_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trick.yaml"
    path.write_text(text, "utf-8")
    for reader in (load_manifest, load_config, load_simulation):
        with pytest.raises(GeohsalError) as refused:
            reader(path)
        one_line(refused.value, "trick.yaml")
    assert not Path("hacked").exists()
