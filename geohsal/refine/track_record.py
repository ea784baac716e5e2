"""What PLAR would have said where people answered afterwards.

A round's model has never seen the answers to its own questions, so each answered region shows what
its PLAR was worth: in the pool, where it matters, on the hard regions above all. Withheld regions
alone are too few to prove anything in the first rounds (method 3.3, out-of-sample predictions).
Leads are kept in units of the model's temperature, which makes them comparable between rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.config import PlarConfig
from geohsal.kernels.plar import NO_CLASS, Decision
from geohsal.refine.error_mask import error_probability
from geohsal.refine.plar import margin_of, operands_of, score
from geohsal.refine.statistics import ClassStatistics, LabelledPixels
from geohsal.refine.thresholds import Threshold, Thresholds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackRecord:
    """n answered pixels that the models of their rounds had taken for suspects.

    `label` is the person's class, `teacher` the model's, `chosen` PLAR's with no margin asked for
    (255 where gates or rankings refused), `lead` its lead over the second class in units of the
    temperature, `region` a number per answered region.
    """

    label: NDArray[np.int64]
    teacher: NDArray[np.int64]
    chosen: NDArray[np.int64]
    lead: NDArray[np.float64]
    region: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The pixels of a mask."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def flips(self) -> Self:
        """The pixels that PLAR would have given another class than the teacher."""
        return self.take((self.chosen != NO_CLASS) & (self.chosen != self.teacher))


def join(records: Sequence[TrackRecord]) -> TrackRecord:
    """Records one after the other; regions of different records stay apart."""
    offset, apart = 0, []
    for record in records:
        apart.append(record.region + offset)
        offset += int(record.region.max(initial=-1)) + 1
    nothing = np.zeros(0, dtype=np.int64)
    return TrackRecord(
        label=np.concatenate([nothing, *(record.label for record in records)]),
        teacher=np.concatenate([nothing, *(record.teacher for record in records)]),
        chosen=np.concatenate([nothing, *(record.chosen for record in records)]),
        lead=np.concatenate([np.zeros(0), *(record.lead for record in records)]),
        region=np.concatenate([nothing, *apart]),
    )


def record_of(
    pixels: LabelledPixels,
    statistics: ClassStatistics,
    thresholds: Thresholds,
    config: PlarConfig,
) -> TrackRecord:
    """Pixels that neither statistics nor network have seen, judged without margin.

    Args:
        pixels: as the network sees them.
        statistics: of other regions.
        thresholds: gates, suspect threshold and temperature; margins and do-no-harm are left out.
        config: the rule.
    """
    suspects = pixels.take(suspects_of(pixels, thresholds))
    opened = _without_margins(thresholds)
    chosen = np.full(len(suspects), NO_CLASS, dtype=np.int64)
    lead = np.zeros(len(suspects))
    if len(suspects):
        scores = score(
            torch.from_numpy(np.ascontiguousarray(suspects.features, dtype=np.float32)),
            torch.from_numpy(suspects.teacher.astype(np.int64)),
            operands_of(statistics, opened, config),
            config,
        )
        accepted = np.isin(scores.code.numpy(), (Decision.CONFIRMED, Decision.CORRECTED))
        chosen = np.where(accepted, scores.chosen.numpy().astype(np.int64), NO_CLASS)
        lead = margin_of(scores, config).numpy() / thresholds.temperature.value
    return TrackRecord(
        label=suspects.label.astype(np.int64),
        teacher=suspects.teacher.astype(np.int64),
        chosen=chosen.astype(np.int64),
        lead=lead.astype(np.float64),
        region=suspects.region.astype(np.int64),
    )


def suspects_of(pixels: LabelledPixels, thresholds: Thresholds) -> NDArray[np.bool_]:
    """[n] pixels whose error probability reaches the suspect threshold."""
    differ = pixels.disagreement
    probability = error_probability(
        torch.from_numpy(np.asarray(pixels.error, dtype=np.float32)),
        torch.from_numpy(np.asarray(pixels.confidence, dtype=np.float32)),
        None if differ is None else torch.from_numpy(np.asarray(differ, dtype=np.bool_)),
        thresholds=thresholds,
    )
    return np.asarray((probability >= thresholds.suspect.value).numpy(), dtype=np.bool_)


def _without_margins(thresholds: Thresholds) -> Thresholds:
    none = Threshold(value=0.0, source="unset", reason="")
    return replace(
        thresholds,
        margin=(none,) * thresholds.num_classes,
        abstain=tuple(replace(switch, on=False) for switch in thresholds.abstain),
    )
