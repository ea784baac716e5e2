"""The manifests of a seed: its own blocks, labels drawn by lot, or every train pixel labelled."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from geohsal.config import Config
from geohsal.errors import LabelError
from geohsal.io.atomic import read_record, write_json, write_text
from geohsal.io.manifest import Manifest, SceneSource, dump_manifest
from geohsal.workflows.context import open_context
from geohsal.workflows.simulate_initial import Spent, draw_labels
from geohsal.workflows.tile import tile

FORMAT_VERSION = 1
ASKED = ("train", "blocks")
"""Splits of scenes that questions are asked about."""


def refuse_without_truth(manifest: Manifest) -> None:
    """Check that every scene to ask about can be answered.

    Raises:
        LabelError: one has no truth.
    """
    for source in manifest.scenes:
        if source.split in ASKED and source.truth is None:
            raise LabelError(
                f"{manifest.path}: scene {source.scene_id!r} has no truth to answer from; add "
                "`truth:` to it, or leave the scene out"
            )


def seed_manifest(
    manifest: Manifest, folder: Path, *, seed: int, config: Config, initial: str | None
) -> Path:
    """Write the manifest of a seed, and what was drawn for it; done before, nothing is done again.

    Scenes with `split: blocks` are divided by this seed, so that seeds differ in their blocks too.
    With `initial`, scenes that train have no labels but those of cells drawn by lot.

    Raises:
        BudgetError: `initial` means nothing here, or buys no cell.
        LabelError: truth cannot be read.
    """
    path, drawn = manifest_of(folder), folder / "initial.json"
    if path.exists() and drawn.exists():
        return path
    own, spent = _divided(manifest, seed), Spent()
    if initial is not None:
        own, spent = _draw(own, folder, seed=seed, config=config, initial=initial)
    write_json(drawn, {"format_version": FORMAT_VERSION, **asdict(spent)})
    write_text(path, dump_manifest(own))
    return path


def manifest_of(folder: Path) -> Path:
    """Where the manifest of a seed lies."""
    return folder / "data_manifest.yaml"


def initial_spent(folder: Path) -> Spent:
    """What the cells drawn by lot cost; nothing where labels are the manifest's."""
    values = read_record(folder / "initial.json", "pixels", "area_m2", "seconds", "regions")
    values.pop("format_version", None)
    return Spent(**values)


def full_manifest(manifest: Manifest, folder: Path, *, seed: int) -> Path:
    """Write the manifest of a seed with the truth of every train pixel as its label."""
    path = folder / "all_labelled.yaml"
    own = _divided(manifest, seed)
    scenes = tuple(
        replace(source, labels=source.truth) if source.split in ASKED else source
        for source in own.scenes
    )
    write_text(path, dump_manifest(replace(own, scenes=scenes)))
    return path


def _divided(manifest: Manifest, seed: int) -> Manifest:
    return replace(manifest, blocks=replace(manifest.blocks, seed=seed))


def _draw(
    manifest: Manifest, folder: Path, *, seed: int, config: Config, initial: str
) -> tuple[Manifest, Spent]:
    """The manifest with labels in drawn cells; tiled once without labels to see what may train."""
    look, path = folder / "look", folder / "unlabelled.yaml"
    shutil.rmtree(look, ignore_errors=True)
    blank = replace(manifest, scenes=tuple(map(_unlabelled, manifest.scenes)))
    write_text(path, dump_manifest(blank))
    tile(path, look, config=config)
    labels, spent = draw_labels(
        open_context(look), folder / "labels", seed=seed, budget_text=initial
    )
    shutil.rmtree(look)
    path.unlink()
    scenes = tuple(
        replace(source, labels=labels.get(source.scene_id, source.labels))
        for source in blank.scenes
    )
    return replace(blank, scenes=scenes), spent


def _unlabelled(source: SceneSource) -> SceneSource:
    return replace(source, labels=None) if source.split in ASKED else source
