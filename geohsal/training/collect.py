"""One frozen pass over the labelled regions: what the networks say where a person has spoken."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.dataset import CropSource, TrainArea
from geohsal.data.index import LabelledRegion
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.inference import Predictor
from geohsal.training.ranks import ALONE, Ranks

_Points = dict[str, NDArray[Any]]
"""Columns of equal length, one entry per sampled pixel."""

CHUNK_STRIDES = 4
"""A chunk is this many window strides a side: bounded memory, little work done twice."""


class ScenePart(CropSource, Protocol):
    """An open scene that can be closed."""

    def close(self) -> None:
        """Close its files."""


def chunk_px(predictor: Predictor) -> int:
    """Side of the chunks that whole-scene passes use."""
    return CHUNK_STRIDES * predictor.grid.stride


def collect_pixels(
    predictor: Predictor,
    open_scene: Callable[[str], ScenePart],
    regions: Sequence[LabelledRegion],
    *,
    withheld: frozenset[str],
    learn_errors_at: frozenset[str] = frozenset(),
    ranks: Ranks = ALONE,
) -> LabelledPixels:
    """Teacher features, labels and doubts at the sampled pixels of the labelled regions.

    Args:
        predictor: the frozen networks.
        open_scene: opens a scene by id.
        regions: the labelled regions with their sampled pixels.
        withheld: keys of the regions that the supervised loss does not see.
        learn_errors_at: keys of the withheld regions that the error-mask decoder learns from.
        ranks: processes that share the chunks out; all get all pixels, in the same order.
    """
    work = _work(regions, withheld, learn_errors_at, size=chunk_px(predictor))
    own: list[_Points] = []
    for scene_id, group in groupby(ranks.share(work), key=lambda item: item[0]):
        scene = open_scene(scene_id)
        try:
            own += [_collect_chunk(predictor, scene, points) for _, points in group]
        finally:
            scene.close()
    parts = ranks.merge(own)
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.lexsort((merged.pop("col"), merged.pop("row"), merged["region"]))
    return LabelledPixels(**{key: value[order] for key, value in merged.items()})


def _work(
    regions: Sequence[LabelledRegion],
    withheld: frozenset[str],
    learn_errors_at: frozenset[str],
    *,
    size: int,
) -> list[tuple[str, _Points]]:
    """Scene and sampled pixels of every chunk of `size` pixels a side that has some."""
    by_scene: dict[str, list[int]] = {}
    for position, region in enumerate(regions):
        by_scene.setdefault(region.scene_id, []).append(position)
    work: list[tuple[str, _Points]] = []
    for scene_id in sorted(by_scene):
        points = _points(regions, by_scene[scene_id], withheld, learn_errors_at)
        places = np.stack([points["row"] // size, points["col"] // size], axis=1)
        chunks, chunk = np.unique(places, axis=0, return_inverse=True)
        for number in range(len(chunks)):
            inside = chunk.ravel() == number
            work.append((scene_id, {key: value[inside] for key, value in points.items()}))
    return work


def _points(
    regions: Sequence[LabelledRegion],
    positions: Sequence[int],
    withheld: frozenset[str],
    learn_errors_at: frozenset[str],
) -> _Points:
    """Sampled pixels of some regions; a region's id is its position, unique over all scenes."""
    own = [regions[position] for position in positions]
    sizes = [len(region.classes) for region in own]
    pixels = np.concatenate([region.pixels for region in own]).astype(np.int64)

    def spread(values: Sequence[int]) -> NDArray[np.int64]:
        return np.repeat(np.asarray(values, np.int64), sizes)

    return {
        "row": pixels[:, 0],
        "col": pixels[:, 1],
        "label": np.concatenate([region.classes for region in own]).astype(np.int64),
        "region": spread(positions),
        "withheld": spread([region.key in withheld for region in own]),
        "error_seen": spread([region.key in learn_errors_at for region in own]),
        "weight": np.concatenate([_weights(region) for region in own]),
    }


def _weights(region: LabelledRegion) -> NDArray[np.float64]:
    """Labelled pixels of the region that each sampled pixel of a class stands for."""
    drawn = Counter(region.classes.tolist())
    each = {class_id: region.counts[class_id] / count for class_id, count in drawn.items()}
    return np.array([each[class_id] for class_id in region.classes.tolist()], dtype=np.float64)


def collect_pool(
    predictor: Predictor,
    open_scene: Callable[[str], ScenePart],
    areas: Sequence[TrainArea],
    *,
    windows: int,
    seed: int,
    ranks: Ranks = ALONE,
) -> NDArray[np.float32]:
    """Probabilities [n, C] of the teacher at train pixels of windows drawn from the train tiles.

    Tiles are drawn by their valid pixels, with replacement, and the window's place inside the tile
    by lot; every eighth pixel of a row and column counts, since neighbours say the same. Windows
    without such a pixel add nothing: where all are so, n is 0, and the caller must take that as no
    evidence (a mean over no pixels is NaN).

    Args:
        predictor: the frozen networks.
        open_scene: opens a scene by id.
        areas: the train tiles.
        windows: to draw; at most as large as the inference window.
        seed: of the draws.
        ranks: processes that share the windows out; all get all pixels, in the same order.
    """
    rng = np.random.default_rng(seed)
    share = np.array([area.weight for area in areas])
    numbers = np.sort(rng.choice(len(areas), size=windows, p=share / share.sum()))
    places = rng.random((windows, 2))
    own: list[NDArray[np.float32]] = []
    for number, place in ranks.share(list(zip(numbers.tolist(), places, strict=True))):
        scene = open_scene(areas[number].scene_id)
        try:
            own.append(_look(predictor, scene, _window_in(areas[number], predictor, place)))
        finally:
            scene.close()
    none = np.zeros((0, predictor.head.out_channels), dtype=np.float32)
    return np.concatenate([none, *ranks.merge(own)])


def _window_in(area: TrainArea, predictor: Predictor, place: NDArray[np.float64]) -> Window:
    """A window of the inference's size in a tile; `place` (row, col) from 0 to 1 says where."""
    height = min(predictor.grid.size, area.height)
    width = min(predictor.grid.size, area.width)
    row = area.row + int(place[0] * (area.height - height + 1))
    col = area.col + int(place[1] * (area.width - width + 1))
    return Window(col, row, width, height)


def _look(predictor: Predictor, scene: ScenePart, box: Window) -> NDArray[np.float32]:
    """Probabilities [n, C] at every eighth train pixel of a window, row and column."""
    train = torch.from_numpy(scene.trainable(box))[::8, ::8]
    if not train.any():
        return np.zeros((0, predictor.head.out_channels), dtype=np.float32)
    output = predictor.predict(scene, box)
    seen = output.valid.cpu()[::8, ::8] & train
    found: NDArray[np.float32] = output.probabilities.cpu()[:, ::8, ::8][:, seen].T.numpy()
    return found


def _collect_chunk(predictor: Predictor, scene: ScenePart, points: _Points) -> _Points:
    rows, cols = points["row"], points["col"]
    row0, col0 = int(rows.min()), int(cols.min())  # only the windows that the points need
    box = Window(col0, row0, int(cols.max()) - col0 + 1, int(rows.max()) - row0 + 1)
    output = predictor.predict(scene, box)
    row = torch.from_numpy(rows - row0).to(predictor.device)
    col = torch.from_numpy(cols - col0).to(predictor.device)
    return {
        "row": rows,
        "col": cols,
        "features": output.features[:, row, col].T.cpu().numpy(),
        "label": points["label"],
        "region": points["region"],
        "withheld": points["withheld"].astype(np.bool_),
        "error_seen": points["error_seen"].astype(np.bool_),
        "weight": points["weight"],
        "probabilities": output.probabilities[:, row, col].T.cpu().numpy(),
        "teacher": output.teacher[row, col].cpu().numpy(),
        "confidence": output.confidence[row, col].cpu().numpy().astype(np.float64),
        "error": output.error_logits[row, col].sigmoid().cpu().numpy().astype(np.float64),
        "disagreement": output.disagree[row, col].cpu().numpy(),
    }
