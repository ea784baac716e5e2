"""A scene judged window by window: frozen pass, EMD, PLAR, spatial rule, caps, acquisition map."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.data.sources import SceneCrops
from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query.acquisition import acquisition
from geohsal.query.evidence import PixelEvidence
from geohsal.refine.correction_caps import cap_corrections
from geohsal.refine.scene_rules import apply_spatial_rule
from geohsal.training.collect import chunk_px
from geohsal.training.inference import ChunkOutput, Predictor, chunks
from geohsal.training.judgement import RefineState, judge_chunk

HALO = 2
"""The spatial rule looks at 5x5 neighbourhoods: two pixels around a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMaps:
    """What is believed of one chunk before the caps of the whole scene; arrays (row, col).

    `teacher`, `plar`, `state` are codes, 255 or NODATA where invalid; `entropy`, `top2`,
    `confidence`, `error` in [0, 1]; `margin` PLAR's; `label` the human one, 255 where none;
    `information` by dropout, None unless asked for.
    """

    window: Window
    teacher: NDArray[np.uint8]
    plar: NDArray[np.uint8]
    state: NDArray[np.uint8]
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    entropy: NDArray[np.float32]
    top2: NDArray[np.float32]
    error: NDArray[np.float32]
    margin: NDArray[np.float32]
    disagree: NDArray[np.bool_]
    information: NDArray[np.float32] | None


def scene_chunks(predictor: Predictor, height: int, width: int) -> list[Window]:
    """The chunks of a whole-scene pass."""
    return list(chunks(height, width, size=chunk_px(predictor)))


def judge_window(
    predictor: Predictor,
    scene: SceneCrops,
    window: Window,
    *,
    state: RefineState,
    config: Config,
    dropout: torch.Tensor | None = None,
) -> tuple[ChunkMaps, ChunkOutput, tuple[slice, slice]]:
    """Judge one chunk, looking two pixels further for the spatial rule.

    `dropout` holds the masks of `models.mc_dropout` where mutual information is needed.

    Returns:
        The maps of the chunk, the networks' output with its halo, and where the chunk lies in it.
    """
    wide, inner = _with_halo(window, scene.scene.height, scene.scene.width)
    output = predictor.predict(scene, wide, dropout=dropout)
    judged = judge_chunk(output, state=state, config=config)
    labels, _ = scene.labels(wide)
    valid = output.valid.cpu().numpy()
    codes = judged.state.cpu().numpy().astype(np.uint8)
    codes = np.where(labels != IGNORE_INDEX, np.uint8(PixelState.LABELLED), codes)
    codes = np.where(valid, codes, np.uint8(PixelState.NODATA))
    plar = judged.plar_class.cpu().numpy().astype(np.uint8)
    codes = apply_spatial_rule(codes, plar, share=config.plar.spatial_share)
    teacher = output.teacher.cpu().numpy().astype(np.uint8)
    unknown = ~np.isin(codes, (PixelState.NODATA, PixelState.LABELLED))
    maps = ChunkMaps(
        window=window,
        teacher=np.where(valid, teacher, np.uint8(IGNORE_INDEX))[inner],
        plar=np.where(unknown, plar, np.uint8(IGNORE_INDEX))[inner],
        state=codes[inner],
        label=labels[inner],
        confidence=_masked(output.confidence, valid)[inner],
        entropy=_masked(output.entropy, valid)[inner],
        top2=_masked(output.margin, valid)[inner],
        error=_masked(judged.error, unknown)[inner],
        margin=_masked(judged.margin, unknown)[inner],
        disagree=(output.disagree.cpu().numpy() & valid)[inner],
        information=None
        if output.information is None
        else _masked(output.information, valid)[inner],
    )
    return maps, output, inner


def _masked(values: torch.Tensor, where: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(where, values.float().cpu().numpy(), np.float32(0.0)).astype(np.float32)


def _with_halo(window: Window, height: int, width: int) -> tuple[Window, tuple[slice, slice]]:
    row, col = int(window.row_off), int(window.col_off)
    rows, cols = int(window.height), int(window.width)
    top, left = min(HALO, row), min(HALO, col)
    bottom = min(HALO, height - row - rows)
    right = min(HALO, width - col - cols)
    wide = Window(col - left, row - top, cols + left + right, rows + top + bottom)
    return wide, (slice(top, top + rows), slice(left, left + cols))


def finish_maps(
    chunk: ChunkMaps,
    *,
    floor: NDArray[np.int32],
    config: Config,
    scene_id: str,
    seed: int,
    class_weight: NDArray[np.float64],
) -> SceneMaps:
    """Caps, refined labels, and the acquisition map of the configured strategy, of any window.

    Args:
        chunk: what is believed of the window, with the halo that the acquisition asks for.
        floor: which corrections of the whole scene stay, see `refine.correction_caps`.
        config: the run's settings.
        scene_id: of the window's scene.
        seed: of the acquisition's draws.
        class_weight: of the acquisition, one number per class.
    """
    state = cap_corrections(chunk.state, chunk.teacher, chunk.plar, chunk.margin, floor=floor)
    refined = np.where(state == PixelState.CORRECTED, chunk.plar, chunk.teacher)
    refined = np.where(state == PixelState.LABELLED, chunk.label, refined)
    refined = np.where(state == PixelState.NODATA, np.uint8(IGNORE_INDEX), refined)
    evidence = PixelEvidence(
        scene_id=scene_id,
        seed=seed,
        teacher=chunk.teacher,
        state=state,
        confidence=chunk.confidence,
        entropy=chunk.entropy,
        top2_margin=chunk.top2,
        error=chunk.error,
        disagree=chunk.disagree,
        information=chunk.information,
        class_weight=class_weight,
    )
    return SceneMaps(
        teacher=chunk.teacher,
        refined=refined.astype(np.uint8),
        plar=chunk.plar,
        state=state,
        confidence=chunk.confidence,
        error=chunk.error,
        margin=chunk.margin,
        undecided=acquisition(config.query.strategy).pixels(evidence, config.query),
    )


def pool_mask(
    scene: SceneCrops,
    window: Window,
    state: NDArray[np.uint8],
    blocked: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Pixels (row, col) that may be asked about: valid, unlabelled, train, not yet answered.

    Args:
        scene: the open scene.
        window: where `state` lies.
        state: PixelState codes of the window.
        blocked: (row, col) of the window, True inside regions that are answered or rest; None
            where nothing is.
    """
    free = ~np.isin(state, (PixelState.NODATA, PixelState.LABELLED))
    pool: NDArray[np.bool_] = free & scene.trainable(window)
    return pool if blocked is None else pool & ~blocked
