"""What the student learns from on unlabelled crops: who labels, what is believed, which views.

The switches, and what each uses. Who labels:

| ssl.enabled=false | nobody: labels alone |
| ssl.first_round=N | nobody before round N: labels alone |
| ssl.consistency=ema, ssl.teacher=ema | the EMA teacher; one strong view |
| ssl.consistency=ema, ssl.teacher=previous | the last round's model, frozen; one strong view |
| ssl.consistency=fixmatch | the student; one strong view |
| ssl.consistency=unimatch | the student; 1/4 + 1/4 two strong views, 1/2 dropped features |

Which of its labels are believed, always from the class's confidence threshold upwards:

| emd.enabled=false, plar.rule=none | all: plain mean teacher, FixMatch, UniMatch |
| emd.enabled=true, plar.rule=none | all but the error decoder's suspects |
| emd.enabled=false, plar.rule other | suspects by doubt only as PLAR confirms or corrects them |
| emd.enabled=true, plar.rule other | the error decoder's suspects only as PLAR does so |

What else learns, or how:

| ssl.friend=none | no second learner |
| ssl.friend=head, peer, arch | learns as the student does (one view); each labels for the other |
| ssl.class_mix | a strong view takes a box, classes or nothing of another crop |
| ssl.contrast_weight>0 | features of pixels labelled, or believed on the first strong view |
| ssl.probe_weight>0 | student and friend also learn the linear probe's soft labels of that view |

Thresholds, statistics and the error decoder's calibration are those of the network that labels.
The saved model is the EMA teacher in every case, with thresholds of its own: where error mask and
PLAR are both off, pixels that it doubts are AMBIGUOUS in maps and guide queries, but veto nothing
here. A class without labels may be believed where the labelling network is sure of it by
`ssl.confidence_fallback`; the supervised loss speaks against it at every labelled pixel, and PLAR
never assigns it.

The shares of UniMatch are those of its authors' published code (Yang et al. 2023). It halves the
sum of supervised and unsupervised loss; here `ssl.weight_max` alone sets their relation, which is
the same at 1. The pixel stem (`model.pixel_channels`) is perturbed like the encoder's features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geohsal.config import Config, SslConfig
from geohsal.data.augment import StrongViews, UnlabelledView
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.models.tsf import InferenceNetworks, TeacherStudentFriend
from geohsal.training.judgement import Judgement, RefineState, judge_batch

UNIMATCH_SHARES = (0.25, 0.25, 0.5)
"""Two strong views and the perturbed features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The views that the student learns on, with their shares of the loss.

    The friend sees the first view. The last `perturbed` views (0 or 1) are decoded from perturbed
    features.
    """

    views: tuple[UnlabelledView, ...]
    shares: tuple[float, ...]
    perturbed: int

    @property
    def first(self) -> UnlabelledView:
        """The strong view that the friend sees too."""
        return self.views[0]


def labelling_networks(networks: TeacherStudentFriend, ssl: SslConfig) -> InferenceNetworks:
    """The networks whose labels are learned from, the labelling one in the teacher's place."""
    if ssl.consistency != "ema":
        return networks.inference_networks(networks.student)
    return networks.inference_networks(networks.previous if ssl.teacher == "previous" else None)


def judged_view(
    networks: TeacherStudentFriend,
    image: Tensor,
    maps: dict[str, Tensor],
    *,
    state: RefineState,
    config: Config,
) -> tuple[UnlabelledView, Judgement]:
    """A weak view with all that is believed of its pixels, and how that came about.

    Args:
        networks: labelling ones and peers.
        image: (batch, band, height, width).
        maps: `mask`, `valid` and `train`, each (batch, height, width).
        state: statistics and thresholds of the labelling network.
        config: all settings.
    """
    with networks.frozen():
        labelling = labelling_networks(networks, config.ssl)
        output = labelling(image)
        student = _student_logits(networks, image)
        if student is not None:
            student = labelling.shifted(student)
    judged = judge_batch(output, state=state, config=config)
    gate = state.confidence_thresholds.to(image.device)
    trusted = _trusted(judged.state, config)
    half = torch.where(judged.state == PixelState.CORRECTED, config.ssl.corrected_weight, 1.0)
    weight = trusted * (judged.confidence >= gate[judged.teacher]) * half
    friend_label, friend_weight = _peer(output.friend_logits, gate, trusted)
    student_label, student_weight = _peer(student, gate, trusted)
    view = UnlabelledView(
        image=image,
        target=judged.labels,
        weight=weight.float(),
        friend_target=friend_label,
        friend_weight=friend_weight,
        student_target=student_label,
        student_weight=student_weight,
        state=judged.state,
        counted=maps["valid"] & maps["train"] & (maps["mask"] == IGNORE_INDEX),
        valid=maps["valid"],
    )
    return view, judged


def streams_of(view: UnlabelledView, strong: StrongViews, *, consistency: str) -> Streams:
    """The views that the student learns on."""
    if consistency != "unimatch":
        return Streams(views=(strong(view),), shares=(1.0,), perturbed=0)
    return Streams(views=(strong(view), strong(view), view), shares=UNIMATCH_SHARES, perturbed=1)


def _student_logits(networks: TeacherStudentFriend, image: Tensor) -> Tensor | None:
    """What the student tells the friend; None where there is nobody to tell."""
    if networks.friend is None:
        return None
    logits: Tensor = networks.student(image.contiguous(memory_format=torch.channels_last)).logits
    return logits


def _trusted(states: Tensor, config: Config) -> Tensor:
    """True where no error mask and no PLAR abstained; everywhere where both are off."""
    if config.plar.rule == "none" and not config.emd.enabled:
        return torch.ones_like(states, dtype=torch.bool)
    return states <= PixelState.CORRECTED


def _peer(logits: Tensor | None, gate: Tensor, trusted: Tensor) -> tuple[Tensor, Tensor]:
    """A peer's labels and weights: its own confidence, and 0 where PLAR abstained."""
    if logits is None:
        return torch.zeros_like(trusted, dtype=torch.int64), torch.zeros_like(trusted).float()
    confidence, label = logits.float().softmax(dim=1).max(dim=1)
    return label, (trusted * (confidence >= gate[label])).float()
