"""The Lightning module: one TSF step, the EMA teacher, the collapse guard."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from geohsal.config import Config
from geohsal.data.augment import StrongViews, WeakViews, photometric
from geohsal.data.dataset import seed_of
from geohsal.geo.states import IGNORE_INDEX
from geohsal.models.error_mask import best_class
from geohsal.models.tsf import InferenceNetworks, TeacherStudentFriend
from geohsal.training.checkpoint import SECTION
from geohsal.training.contrast import contrast_loss, draw_pixels
from geohsal.training.guard import CollapseGuard
from geohsal.training.judgement import RefineState
from geohsal.training.losses import (
    class_weights,
    error_mask_loss,
    supervised_loss,
    unsupervised_weight,
    weighted_pseudo_loss,
)
from geohsal.training.norms import average, running_statistics
from geohsal.training.optimiser import make_optimiser
from geohsal.training.part import PartSums
from geohsal.training.probe import Tutor, probe_loss
from geohsal.training.pseudo_labels import Streams, judged_view, labelling_networks, streams_of
from geohsal.training.ranks import ALONE, Ranks
from geohsal.training.shares import Counts, count_pixels

Refresh = Callable[[InferenceNetworks], RefineState | None]
Validate = Callable[[InferenceNetworks], float | None]
Told = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """How a round's steps are divided; `parts` x `part_steps` optimiser steps in all."""

    round_index: int
    parts: int
    part_steps: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the round."""
        return self.parts * self.part_steps


class TsfModule(L.LightningModule):
    """Trains student, friend and error-mask decoder; the teacher follows by EMA (method: TSF).

    Args:
        networks: of the run.
        config: all settings.
        plan: parts and steps.
        class_names: by class id.
        class_pixels: (class,) labelled pixels that enter the supervised loss.
        refresh: statistics and thresholds of frozen networks.
        validate: mIoU of frozen networks on val labels, or None.
        told: whether any process was told to stop; asked before and after a part's refresh.
        tutor: the linear probe, switched by `refresh`; None: the round has none.
        request: identifies settings and labels in checkpoints.
        ranks: the processes that train together.

    `step` counts the optimiser steps of the round; unlike Lightning's own count it goes on after a
    resume, and everything that depends on the time in a round follows it. Each epoch of Lightning
    holds all steps that are left; the parts of a round are made here.
    """

    def __init__(
        self,
        networks: TeacherStudentFriend,
        *,
        config: Config,
        plan: RoundPlan,
        class_names: Sequence[str],
        class_pixels: Tensor,
        refresh: Refresh,
        validate: Validate,
        told: Told,
        tutor: Tutor | None = None,
        request: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.config = config
        self.plan = plan
        self.class_weights = class_weights(class_pixels, config.train.class_weights)
        self.guard = CollapseGuard(config.ssl, class_names)
        self.best_score = -math.inf
        self.best_teacher: dict[str, Tensor] | None = None
        self.history: list[dict[str, float]] = []
        self.timings: list[dict[str, float]] = []
        self.step = 0
        self.request = request
        self._ranks = ranks
        self._norms = running_statistics(networks.student, networks.friend)
        self._refresh = refresh
        self._validate = validate
        self._told = told
        self._tutor = tutor
        self._refine_state: RefineState | None = None
        self._weak = WeakViews(config.augment)
        self._strong = StrongViews(
            config.augment, mix=config.ssl.class_mix, class_pixels=class_pixels
        )
        self._learns_unlabelled = config.ssl.active(plan.round_index)
        self._refresh_every = max(1, round(config.plar.refresh_share * plan.parts))
        self.part = PartSums(ranks)

    # --- one step -----------------------------------------------------------------------------

    def training_step(self, batch: dict[str, dict[str, Any]], batch_idx: int) -> Tensor:
        """One step on {"labelled": ..., "unlabelled": ...}; the step seeds all randomness."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(
                seed_of(
                    self.config.seed,
                    "step",
                    self.plan.round_index,
                    self.step,
                    self._ranks.rank,
                )
            )
            losses = self._losses(batch["labelled"], batch.get("unlabelled", {}))
        self.part.add(losses)
        return losses["loss"]

    def _losses(self, labelled: dict[str, Any], unlabelled: dict[str, Any]) -> dict[str, Tensor]:
        image, maps = self._weak(
            labelled["image"], {key: labelled[key] for key in ("mask", "withheld", "valid")}
        )
        weight = self._unsupervised_weight()
        streams = None
        if weight > 0 or self._tutored:
            streams = self._streams(unlabelled, believed=weight > 0)
        counts = count_pixels(
            self._ranks, labels=maps["mask"], withheld=maps["withheld"], streams=streams
        )
        gain = self.config.augment.labelled_gain
        shown = photometric(image, maps["valid"], gain=gain, offset=gain, noise=0.0)
        count = shown.shape[0]
        views = () if streams is None else streams.views
        student, friend = self.networks.student_and_friend(
            torch.cat([shown, *(view.image for view in views)]),
            friend_sees=count + (len(views[0].image) if views else 0),
            perturbed=0 if streams is None else streams.perturbed * len(views[-1].image),
        )
        losses = {"supervised": self._supervised(student.logits[:count], maps["mask"], counts)}
        total = losses["supervised"]
        if friend is not None:
            losses["friend"] = self._supervised(friend.logits[:count], maps["mask"], counts)
            total = total + losses["friend"]
        friend_logits = None if friend is None else friend.logits[count:]
        if streams is not None and weight > 0:
            losses["unsupervised"] = self._consistency(
                student.logits[count:], friend_logits, streams, counts
            )
            total = total + weight * losses["unsupervised"]
        if streams is not None and streams.first.probe is not None:
            losses["probe"] = self._distillation(
                student.logits[count:], friend_logits, streams, counts
            )
            total = total + self.config.ssl.probe_weight * losses["probe"]
        if self.networks.projection is not None and self._learns_unlabelled:
            trusted = streams if weight > 0 else None
            losses["contrast"] = self._contrast(student.features, maps["mask"], trusted)
            total = total + self.config.ssl.contrast_weight * losses["contrast"]
        if self.config.emd.enabled and bool((maps["withheld"] != IGNORE_INDEX).any()):
            loss = self._error_mask(image, maps["withheld"])
            losses["error_mask"] = loss * counts.error_scale
            total = total + self.config.emd.weight * losses["error_mask"]
        losses["loss"] = total
        return losses

    def _supervised(self, logits: Tensor, labels: Tensor, counts: Counts) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return supervised_loss(logits, labels, weights, count=counts.labelled)

    @property
    def _tutored(self) -> bool:
        """Whether the linear probe's soft labels are learned at present."""
        return self._tutor is not None and self._tutor.on and self._learns_unlabelled

    def _unsupervised_weight(self) -> float:
        ssl, anew = self.config.ssl, self.plan.round_index == 0
        if self.config.train.restart and self.networks.previous is None:
            anew = True  # a teacher of random weights has nothing to tell yet
        if not self._learns_unlabelled or self._refine_state is None:
            return 0.0
        return unsupervised_weight(
            self.step,
            total=self.plan.steps,
            warm_share=ssl.warm_share if anew else 0.0,
            ramp_share=ssl.ramp_share,
            maximum=ssl.weight_max,
        )

    @torch.no_grad()
    def _streams(self, unlabelled: dict[str, Any], *, believed: bool) -> Streams:
        """The weak view, judged; then what the student is shown of it.

        The guard looks on only where the labels are `believed`, that is learned from.
        """
        image, maps, probe = self._weak_view(unlabelled)
        state = self._refine_state
        assert state is not None, "judged before the first refresh"
        view, judged = judged_view(self.networks, image, maps, state=state, config=self.config)
        if believed:
            self.guard.see(
                teacher=judged.teacher[view.counted],
                target=judged.labels[view.counted & (view.weight > 0)],
                disagree=judged.disagree[view.counted],
                has_friend=self.networks.friend is not None,
            )
        view = replace(view, probe=probe)
        return streams_of(view, self._strong, consistency=self.config.ssl.consistency)

    def _weak_view(
        self, unlabelled: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Image and maps, and what the probe says of them at the scale that it was fitted at.

        Its probabilities move with the image. Where nothing was they are 0, at the border of that
        they sum up to less than 1: such pixels weigh less.
        """
        image = unlabelled["image"]
        given = {key: unlabelled[key] for key in ("mask", "valid", "train")}
        if self._tutor is None or not self._tutor.on:
            return *self._weak(image, given), None
        said = self._tutor.probe(image, unlabelled["valid"])
        moved, maps = self._weak(torch.cat([image, said.to(image.dtype)], dim=1), given)
        bands = image.shape[1]
        return moved[:, :bands].contiguous(), maps, moved[:, bands:].contiguous()

    def _consistency(
        self, student: Tensor, friend: Tensor | None, streams: Streams, counts: Counts
    ) -> Tensor:
        """CE_w against the refined label, and between the peers (method: TSF)."""
        logits = torch.split(student, [len(view.image) for view in streams.views])
        parts = zip(streams.shares, logits, streams.views, counts.views, strict=True)
        losses = [
            share * weighted_pseudo_loss(one, view.target, view.weight, view.counted, count=count)
            for share, one, view, count in parts
        ]
        loss = torch.stack(losses).sum()
        if friend is None:
            return loss
        view, peer, count = streams.first, self.config.ssl.peer_weight, counts.views[0]

        def learn(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            return weighted_pseudo_loss(logits, target, weight, view.counted, count=count)

        loss = loss + learn(friend, view.target, view.weight)
        loss = loss + peer * learn(logits[0], view.friend_target, view.friend_weight)
        return loss + peer * learn(friend, view.student_target, view.student_weight)

    def _distillation(
        self, student: Tensor, friend: Tensor | None, streams: Streams, counts: Counts
    ) -> Tensor:
        """Both learners on the first strong view against the probe's probabilities."""
        view, count = streams.first, counts.views[0]
        assert view.probe is not None, "a view without the probe's probabilities"
        loss = probe_loss(student[: len(view.image)], view.probe, view.counted, count=count)
        if friend is None:
            return loss
        return loss + probe_loss(friend, view.probe, view.counted, count=count)

    def _contrast(self, features: Tensor, labels: Tensor, streams: Streams | None) -> Tensor:
        """Pixel contrast on human labels, and on what is believed of the first strong view."""
        assert self.networks.projection is not None
        if streams is not None:
            view = streams.first
            believed = view.counted & (view.weight > 0)
            labels = torch.cat([labels, torch.where(believed, view.target, IGNORE_INDEX)])
        drawn = draw_pixels(labels)
        pixels = features[: len(labels)].permute(0, 2, 3, 1).flatten(0, 2)[drawn]
        return contrast_loss(self.networks.projection(pixels), labels.flatten()[drawn])

    def _error_mask(self, image: Tensor, withheld: Tensor) -> Tensor:
        """EMD on withheld regions: the teacher's labels there are out of sample."""
        there = (withheld != IGNORE_INDEX).flatten(1).any(dim=1)
        image, withheld = image[there], withheld[there]
        with (
            torch.set_grad_enabled(not self.config.emd.stop_gradient),
            self.networks.frozen() as frozen,
        ):
            output = frozen.teacher(image)
            logits = frozen.shifted(output.logits)
            friend = (
                None
                if frozen.friend is None
                else frozen.shifted(frozen.friend(image).logits).detach()
            )
        error = self.networks.emd(output.features, logits, friend)
        return error_mask_loss(error, best_class(logits), withheld, dice=self.config.emd.dice)

    # --- around the steps ---------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """A part begins where its first step does; -1, Lightning's word, ends the epoch there.

        Nothing is lost by it: a checkpoint was written when the part before ended.
        """
        if self.step % self.plan.part_steps:
            return None
        if self._told():
            return -1
        self.begin_part()
        return -1 if self._told() else None

    def begin_part(self) -> None:
        """Refresh statistics and thresholds from a frozen pass where a refresh is due."""
        self.part.reset()
        if not self._learns_unlabelled:
            return
        part = self.step // self.plan.part_steps
        if self._refine_state is None or part % self._refresh_every == 0:
            with torch.no_grad(), self.networks.frozen():
                labelling = labelling_networks(self.networks, self.config.ssl)
                self._refine_state = self._refresh(labelling)

    def end_step(self) -> bool:
        """theta_T follows theta_S after an optimiser step; gives whether a part ended with it."""
        self.step += 1
        average(self._norms, self._ranks)
        self.networks.update_teacher(step=self.step, ema_max=self.config.ssl.ema_max)
        closes = self.step % self.plan.part_steps == 0
        if closes:
            self._end_part()
        return closes

    def _end_part(self) -> None:
        """Losses of the part, validation, guard."""
        row = self.part.means(self.plan.part_steps)
        row["step"] = float(self.step)
        with torch.no_grad(), self.networks.frozen() as frozen:
            score = self._validate(frozen)
        if score is not None:
            row["val_miou"] = score
            if score > self.best_score:
                self.best_score = score
                teacher = self.networks.teacher.state_dict()
                self.best_teacher = {
                    key: value.detach().cpu().clone() for key, value in teacher.items()
                }
        self.guard.take(self._ranks.gather(self.guard.counts()))
        row |= self.guard.close_part(
            step=self.step,
            unsupervised=row.get("unsupervised") if self._unsupervised_weight() > 0 else None,
        )
        self.history.append(row)
        self.timings.append(
            {"seconds": round(self.part.seconds, 3), "processes": self._ranks.world}
        )
        self.part.reset()

    # --- optimiser and checkpoint -------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """As the settings say, over all steps of the round."""
        return make_optimiser(self.networks, self.config.train, steps=self.plan.steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a resumed round needs beyond weights and optimiser; all processes save together."""
        del checkpoint["loops"]  # Lightning's own place in an epoch: `step` is ours
        checkpoint[SECTION] = {
            "request": self.request,
            "step": self.step,
            "world": self._ranks.world,
            "refine_state": None if self._refine_state is None else self._refine_state.to_state(),
            "tutored": self._tutored,
            "best_score": self.best_score,
            "best_teacher": self.best_teacher,
            "history": self.history,
            "timings": self.timings,
            "warnings": self.guard.warnings,
            "part": self._ranks.gather(
                {"sums": self.part.to_state(), "guard": self.guard.counts()}
            ),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undo `on_save_checkpoint`."""
        saved = checkpoint[SECTION]
        self.step = saved["step"]
        if saved["refine_state"] is not None:
            self._refine_state = RefineState.from_state(saved["refine_state"])
        if self._tutor is not None:
            self._tutor.on = saved["tutored"]
        self.best_score = saved["best_score"]
        self.best_teacher = saved["best_teacher"]
        self.history = saved["history"]
        self.timings = saved["timings"]
        self.guard.warnings = list(saved["warnings"])
        held: list[dict[str, Any]] = saved["part"]
        scale = self._ranks.world / len(held)
        if len(held) == self._ranks.world:
            held = [held[self._ranks.rank]]
        elif self._ranks.rank > 0:
            held = []
        self.part.load([one["sums"] for one in held], scale=scale)
        self.guard.take([one["guard"] for one in held])
