"""`geohsal evaluate`: accuracy of the teacher's map on the test split, each pixel once."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torchmetrics.classification import MulticlassConfusionMatrix

from geohsal.config import FORMAT_VERSION
from geohsal.data.sources import SceneCrops
from geohsal.errors import DataError, LabelError, RunError
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.io.atomic import read_record, write_json
from geohsal.io.label_store import LabelReader
from geohsal.io.labels import read_truth
from geohsal.io.run import Round
from geohsal.io.run_tables import heldout_labels
from geohsal.training.inference import Predictor
from geohsal.training.maps import scene_chunks
from geohsal.training.metrics import (
    Accuracy,
    accuracy_from_confusion,
    confusion_counter,
    update_counter,
)
from geohsal.training.model_io import load_model
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.progress import Progress, Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy of one round's model on test cores.

    `reference` says by scene what it was measured against: truth or manifest labels.
    """

    round: int
    reference: dict[str, str]
    pixels: int
    oa: float
    miou: float
    macro_f1: float
    kappa: float
    per_class: dict[str, dict[str, float | int | None]]
    absent: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    model_hash: str


def evaluate(
    run_dir: Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the newest model of a run on its test split; nodata and unlabelled are left out.

    A model that was measured before is not measured again.

    Raises:
        RunError: no round is trained yet.
        LabelError: there is no test core with truth or labels.
    """
    context = open_context(run_dir)
    round_ = context.run.last_trained()
    if round_ is None:
        raise RunError(
            f"{run_dir}: no round is trained yet; run: geohsal train {shlex.quote(str(run_dir))}"
        )
    model_hash = str(read_record(round_.model_json, "model_hash")["model_hash"])
    kept = _kept(round_, model_hash)
    if kept is not None:
        return kept
    sources = references(context)
    if not sources:
        raise LabelError(
            f"{run_dir}: no test core has truth or labels; give a scene `split: test` (or blocks "
            "with a test share) and `truth:` or `labels:` in the manifest"
        )
    predictor = load_model(round_.model_dir).predictor(pick_device(device))
    counter = confusion_counter(context.manifest.num_classes)
    reporter = progress or Silent()
    reporter.start(f"evaluate round {round_.index}", len(sources))
    for scene_id in sources:
        _evaluate_scene(context, scene_id, predictor, counter)
        reporter.advance()
    reporter.done()
    matrix = counter.compute().numpy()
    if matrix.sum() == 0:
        raise LabelError(f"{run_dir}: truth and labels of the test cores hold no labelled pixel")
    result = _evaluation(
        round_, sources, accuracy_from_confusion(matrix, context.manifest.class_names), model_hash
    )
    write_json(round_.evaluation, {"format_version": FORMAT_VERSION, **asdict(result)})
    return result


def _kept(round_: Round, model_hash: str) -> Evaluation | None:
    if not round_.evaluation.exists():
        return None
    try:  # a damaged record is measured again
        values = read_record(round_.evaluation, "absent", "confusion", "model_hash")
        if values.pop("format_version") != FORMAT_VERSION or values["model_hash"] != model_hash:
            return None
        values["absent"] = tuple(values["absent"])
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        return Evaluation(**values)
    except (DataError, KeyError, TypeError):
        return None


def _evaluation(
    round_: Round, sources: dict[str, str], accuracy: Accuracy, model_hash: str
) -> Evaluation:
    return Evaluation(
        round=round_.index, reference=sources, model_hash=model_hash, **accuracy.to_dict()
    )


def references(context: RunContext) -> dict[str, str]:
    """What each scene with test cores is measured against; scenes with neither are left out."""
    found = {}
    for scene_id in context.scenes_with("test"):
        if context.manifest.scene(scene_id).truth is not None:
            found[scene_id] = "truth"
        elif heldout_labels(context.run, scene_id).exists():
            found[scene_id] = "manifest labels"
    return found


def reference_map(context: RunContext, scene_id: str) -> NDArray[np.uint8]:
    """Truth of a scene, else the manifest's labels; 255 outside test cores and where unknown."""
    source = context.manifest.scene(scene_id)
    scene = context.scenes[scene_id]
    if source.truth is None:
        with LabelReader(heldout_labels(context.run, scene_id)) as held:
            return held.classes()
    return read_truth(
        source.truth, scene, context.manifest.classes, where=f"scene {scene_id}: truth"
    )


def _evaluate_scene(
    context: RunContext,
    scene_id: str,
    predictor: Predictor,
    counter: MulticlassConfusionMatrix,
) -> None:
    reference = reference_map(context, scene_id)
    with context.open(scene_id) as scene:
        for window in scene_chunks(predictor, scene.scene.height, scene.scene.width):
            truth = _test_truth(scene, window, reference)
            if truth is None:
                continue
            output = predictor.predict(scene, window)
            truth[~output.valid.cpu()] = IGNORE_INDEX
            update_counter(counter, output.teacher, truth)


def _test_truth(
    scene: SceneCrops, window: Window, reference: NDArray[np.uint8]
) -> torch.Tensor | None:
    row, col = int(window.row_off), int(window.col_off)
    known = reference[row : row + int(window.height), col : col + int(window.width)]
    truth = np.where(scene.splits(window) == Split.TEST, known, np.uint8(IGNORE_INDEX))
    if (truth == IGNORE_INDEX).all():
        return None
    return torch.from_numpy(truth.astype(np.int64))
