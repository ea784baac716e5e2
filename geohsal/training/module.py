"""The Lightning module: one TSF step, the EMA teacher, the collapse guard."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from geohsal.training.pseudo_labels import Streams, judged_view, labelling_networks, streams_of

Refresh = Callable[[InferenceNetworks], RefineState | None]
Validate = Callable[[InferenceNetworks], float | None]


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
        self._refresh = refresh
        self._validate = validate
        self._refine_state: RefineState | None = None
        self._weak = WeakViews(config.augment)
        self._strong = StrongViews(
            config.augment, mix=config.ssl.class_mix, class_pixels=class_pixels
        )
        self._learns_unlabelled = config.ssl.active(plan.round_index)
        self._refresh_every = max(1, round(config.plar.refresh_share * plan.parts))
        self._sums: dict[str, Tensor] = {}

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
                    self.global_step,
                    self.global_rank,
                )
            )
            losses = self._losses(batch["labelled"], batch.get("unlabelled", {}))
        self._remember(losses)
        return losses["loss"]

    def _losses(self, labelled: dict[str, Any], unlabelled: dict[str, Any]) -> dict[str, Tensor]:
        image, maps = self._weak(
            labelled["image"], {key: labelled[key] for key in ("mask", "withheld", "valid")}
        )
        weight = self._unsupervised_weight()
        streams = self._streams(unlabelled) if weight > 0 else None
        gain = self.config.augment.labelled_gain
        shown = photometric(image, maps["valid"], gain=gain, offset=gain, noise=0.0)
        count = shown.shape[0]
        views = () if streams is None else streams.views
        student, friend = self.networks.student_and_friend(
            torch.cat([shown, *(view.image for view in views)]),
            friend_sees=count + (len(views[0].image) if views else 0),
            perturbed=0 if streams is None else streams.perturbed * len(views[-1].image),
        )
        losses = {"supervised": self._supervised(student.logits[:count], maps["mask"])}
        total = losses["supervised"]
        if friend is not None:
            losses["friend"] = self._supervised(friend.logits[:count], maps["mask"])
            total = total + losses["friend"]
        if streams is not None:
            friend_logits = None if friend is None else friend.logits[count:]
            losses["unsupervised"] = self._consistency(
                student.logits[count:], friend_logits, streams
            )
            total = total + weight * losses["unsupervised"]
        if self.networks.projection is not None and self._learns_unlabelled:
            losses["contrast"] = self._contrast(student.features, maps["mask"], streams)
            total = total + self.config.ssl.contrast_weight * losses["contrast"]
        if self.config.emd.enabled and bool((maps["withheld"] != IGNORE_INDEX).any()):
            losses["error_mask"] = self._error_mask(image, maps["withheld"])
            total = total + self.config.emd.weight * losses["error_mask"]
        losses["loss"] = total
        return losses

    def _supervised(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return supervised_loss(logits, labels, weights)

    def _unsupervised_weight(self) -> float:
        ssl, anew = self.config.ssl, self.plan.round_index == 0
        if self.config.train.restart and self.networks.previous is None:
            anew = True  # a teacher of random weights has nothing to tell yet
        if not self._learns_unlabelled or self._refine_state is None:
            return 0.0
        return unsupervised_weight(
            self.global_step,
            total=self.plan.steps,
            warm_share=ssl.warm_share if anew else 0.0,
            ramp_share=ssl.ramp_share,
            maximum=ssl.weight_max,
        )

    @torch.no_grad()
    def _streams(self, unlabelled: dict[str, Any]) -> Streams:
        """The weak view, judged; then what the student is shown of it."""
        image, maps = self._weak(
            unlabelled["image"], {key: unlabelled[key] for key in ("mask", "valid", "train")}
        )
        state = self._refine_state
        assert state is not None, "judged before the first refresh"
        view, judged = judged_view(self.networks, image, maps, state=state, config=self.config)
        self.guard.see(
            teacher=judged.teacher[view.counted],
            target=judged.labels[view.counted & (view.weight > 0)],
            disagree=judged.disagree[view.counted],
            has_friend=self.networks.friend is not None,
        )
        return streams_of(view, self._strong, consistency=self.config.ssl.consistency)

    def _consistency(self, student: Tensor, friend: Tensor | None, streams: Streams) -> Tensor:
        """CE_w against the refined label, and between the peers (method: TSF)."""
        logits = torch.split(student, [len(view.image) for view in streams.views])
        parts = zip(streams.shares, logits, streams.views, strict=True)
        losses = [
            share * weighted_pseudo_loss(one, view.target, view.weight, view.counted)
            for share, one, view in parts
        ]
        loss = torch.stack(losses).sum()
        if friend is None:
            return loss
        view, peer = streams.first, self.config.ssl.peer_weight
        loss = loss + weighted_pseudo_loss(friend, view.target, view.weight, view.counted)
        loss = loss + peer * weighted_pseudo_loss(
            logits[0], view.friend_target, view.friend_weight, view.counted
        )
        return loss + peer * weighted_pseudo_loss(
            friend, view.student_target, view.student_weight, view.counted
        )

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

    def on_train_epoch_start(self) -> None:
        """Refresh statistics and thresholds from a frozen pass where a refresh is due."""
        self._sums = {}
        if not self._learns_unlabelled:
            return
        first = self._refine_state is None
        if first or self.current_epoch % self._refresh_every == 0:
            with torch.no_grad(), self.networks.frozen():
                labelling = labelling_networks(self.networks, self.config.ssl)
                self._refine_state = self._refresh(labelling)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """theta_T follows theta_S."""
        self.networks.update_teacher(step=self.global_step, ema_max=self.config.ssl.ema_max)

    def on_train_epoch_end(self) -> None:
        """Losses of the part, validation, guard."""
        count = max(1, self.plan.part_steps)
        row = {name: float(value) / count for name, value in self._sums.items()}
        row["step"] = float(self.global_step)
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
        row |= self.guard.close_part(
            step=self.global_step,
            unsupervised=row.get("unsupervised") if self._unsupervised_weight() > 0 else None,
        )
        self.history.append(row)

    def _remember(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            detached = value.detach()
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached

    # --- optimiser and checkpoint -------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """SGD or AdamW with a slower encoder and polynomial decay."""
        train = self.config.train
        optimizer: torch.optim.Optimizer
        groups = self._parameter_groups()
        if train.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay)
        steps, power = self.plan.steps, train.poly_power
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: max(1.0 - step / steps, 1.0 / steps) ** power
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        train = self.config.train
        slow: list[torch.nn.Parameter] = []
        fast: list[torch.nn.Parameter] = []
        for name, parameter in self.networks.named_parameters():
            if not parameter.requires_grad:
                continue
            (slow if ".encoder." in f".{name}" else fast).append(parameter)
        return [
            {"params": fast, "lr": train.lr},
            {"params": slow, "lr": train.lr * train.encoder_lr_scale},
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a resumed round needs beyond weights and optimiser."""
        checkpoint["geohsal"] = {
            "refine_state": None if self._refine_state is None else self._refine_state.to_state(),
            "best_score": self.best_score,
            "best_teacher": self.best_teacher,
            "history": self.history,
            "guard": self.guard.to_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undo `on_save_checkpoint`."""
        saved = checkpoint["geohsal"]
        if saved["refine_state"] is not None:
            self._refine_state = RefineState.from_state(saved["refine_state"])
        self.best_score = saved["best_score"]
        self.best_teacher = saved["best_teacher"]
        self.history = saved["history"]
        self.guard.load_state(saved["guard"])
