"""Train one round: crops, steps, refreshes, resume, the final frozen pass."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.config import Config, TrainConfig
from geohsal.data.dataset import seed_of
from geohsal.errors import PreemptedError
from geohsal.models.tsf import InferenceNetworks, TeacherStudentFriend
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.boundary import Advance, StepBoundary
from geohsal.training.checkpoint import saved_position
from geohsal.training.collect import collect_pixels, collect_pool
from geohsal.training.crops import RoundData, round_loaders
from geohsal.training.inference import Predictor
from geohsal.training.judgement import RefineState, fit_refine_state
from geohsal.training.meeting import Stop
from geohsal.training.model_io import window_grid
from geohsal.training.module import Refresh, RoundPlan, TsfModule, Validate
from geohsal.training.norms import synchronised
from geohsal.training.pool_priors import PriorTracker
from geohsal.training.probe import Tutor, fit_probe, pretrained_encoder
from geohsal.training.ranks import ALONE, Ranks
from geohsal.training.trainer import make_trainer, quiet_lightning

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """Trained networks with statistics and thresholds of the final frozen pass."""

    networks: InferenceNetworks
    refine_state: RefineState
    priors: PriorTracker
    history: list[dict[str, float]]
    guards: list[str]
    best_val_miou: float | None


def plan_round(config: TrainConfig, *, round_index: int) -> RoundPlan:
    """Parts of equal length that together hold at least the configured steps."""
    parts = min(config.checkpoints, config.steps)
    return RoundPlan(round_index=round_index, parts=parts, part_steps=-(-config.steps // parts))


def preempted(folder: Path, *, step: int, steps: int) -> PreemptedError:
    """What a training ends with that was told to stop."""
    if step == 0:
        return PreemptedError(
            f"{folder}: told to stop before the first step; the same command begins again"
        )
    return PreemptedError(
        f"{folder}: told to stop at step {step} of {steps}; the same command goes on from there"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFit:
    """A round to be trained: what from, how, where, and in which processes."""

    data: RoundData
    config: Config
    plan: RoundPlan
    device: torch.device
    ranks: Ranks = ALONE

    def __call__(
        self,
        networks: TeacherStudentFriend,
        *,
        checkpoint: Path,
        log: Path,
        request: str,
        validate: Validate | None,
        stop: Stop,
        advance: Advance,
    ) -> FitResult:
        """Train, then judge the final teacher (the best on val where there is val).

        Args:
            networks: initialised, or from the round before.
            checkpoint: written after each part and some minutes; resumed from where it exists.
            log: JSON lines, one per part.
            request: identifies settings and labels; a checkpoint of another one is refused.
            validate: mIoU of frozen networks on val labels; None where there are none.
            stop: whether this process was told to stop; asked after every step, around each refresh
                and before each look of the final pass.
            advance: told of every step.

        Raises:
            RunError: the checkpoint belongs to another request, or cannot be read.
            PreemptedError: some process was told to stop; the checkpoint holds all steps so far.
        """
        tracker, tutor = self._tracker(), self._tutor()
        boundary = StepBoundary(
            ranks=self.ranks,
            checkpoint=checkpoint,
            minutes=self.config.train.checkpoint_minutes,
            log=log,
            stop=stop,
            advance=advance,
        )
        module = TsfModule(
            synchronised(networks, ranks=self.ranks, device=self.device),
            config=self.config,
            plan=self.plan,
            class_names=self.data.class_names,
            class_pixels=self.data.class_pixels(),
            refresh=self._refresh(tracker, tutor),
            validate=self._validation(tracker, validate),
            told=boundary.told,
            tutor=tutor,
            request=request,
            ranks=self.ranks,
        )
        self._train(module, boundary, checkpoint)

        def go_on() -> None:
            if boundary.stopped or boundary.told():
                raise preempted(checkpoint.parent, step=module.step, steps=self.plan.steps)

        return self._result(module, tracker, go_on)

    def _train(self, module: TsfModule, boundary: StepBoundary, checkpoint: Path) -> None:
        """Take all steps that are left, or those until a signal."""
        found = self.ranks.together(lambda: saved_position(checkpoint, module.request))
        position = self.ranks.gather(found)[0]  # all as the first one sees it
        first = 0 if position is None else position.step
        if position is not None and position.world != self.ranks.world:
            logger.warning(
                "%s was begun with %d processes and goes on with %d: the same crops in each step, "
                "but not the same weights to the last bit",
                checkpoint.parent,
                position.world,
                self.ranks.world,
            )
        boundary.advance(first)
        with quiet_lightning():
            trainer = make_trainer(
                self.config.train,
                boundary,
                device=self.device,
                launch=self.ranks.launch,
                folder=checkpoint.parent,
            )
            trainer.fit(
                module,
                round_loaders(self.data, self.config, self.plan, first=first, ranks=self.ranks),
                ckpt_path=None if position is None else checkpoint,
                weights_only=True,
            )

    def _result(
        self, module: TsfModule, tracker: PriorTracker, go_on: Callable[[], None]
    ) -> FitResult:
        """The final frozen pass; `go_on` raises where it must not begin, or not look again."""
        go_on()
        if module.best_teacher is not None:
            module.networks.teacher.load_state_dict(module.best_teacher)
        module.networks.to(self.device).eval()
        frozen = module.networks.inference_networks()
        pixels = tracker.update(frozen, self._look(frozen))
        if tracker.shift.any():
            go_on()
            pixels = self._look(frozen)
        return FitResult(
            networks=frozen,
            refine_state=self._state(tracker, pixels),
            priors=tracker,
            history=module.history,
            guards=module.guard.warnings,
            best_val_miou=None if module.best_teacher is None else module.best_score,
        )

    def _tutor(self) -> Tutor | None:
        """The linear probe where the settings ask for one; the same one in every process."""
        ssl = self.config.ssl
        if ssl.probe_weight == 0 or not ssl.active(self.plan.round_index):
            return None
        return fit_probe(
            self.data.regions,
            withheld=self.data.withheld,
            open_source=self.data.opener,
            scale=self.data.scale,
            encoder=pretrained_encoder(
                self.config.model, bands=len(self.data.scale.mean), device=self.device
            ),
            num_classes=self.data.num_classes,
            seed=self.config.seed,
            device=self.device,
            ranks=self.ranks,
        )

    def _validation(self, tracker: PriorTracker, validate: Validate | None) -> Validate:
        """Validation under the shift that a model saved here would get; training keeps its own."""

        def check(frozen: InferenceNetworks) -> float | None:
            if validate is None:
                return None
            present = frozen.prior_shift.clone()
            try:
                if tracker.can_shift(len(present)):
                    tracker.update(frozen, self._look(frozen))
                else:
                    frozen.prior_shift.zero_()  # without a look at all labelled regions
                return validate(frozen)
            finally:
                frozen.prior_shift.copy_(present)

        return check

    # --- frozen passes, shared out among the processes ------------------------------------------

    def _predictor(self, frozen: InferenceNetworks) -> Predictor:
        return Predictor(
            frozen, scale=self.data.scale, grid=window_grid(self.config), device=self.device
        )

    def _refresh(self, tracker: PriorTracker, tutor: Tutor | None) -> Refresh:
        """Statistics and thresholds of frozen networks; the probe is weighed up on the way."""

        def refresh(frozen: InferenceNetworks) -> RefineState:
            pixels = tracker.update(frozen, self._look(frozen))
            if tutor is not None:
                tutor.see(pixels)
            return self._state(tracker, pixels)

        return refresh

    def _look(self, frozen: InferenceNetworks) -> LabelledPixels:
        return collect_pixels(
            self._predictor(frozen),
            self.data.opener,
            self.data.regions,
            withheld=self.data.withheld,
            learn_errors_at=self.data.learn_errors_at(self.config),
            ranks=self.ranks,
        )

    def _look_at_pool(self, frozen: InferenceNetworks) -> NDArray[np.float32]:
        return collect_pool(
            self._predictor(frozen),
            self.data.opener,
            self.data.areas,
            windows=self.config.prior.windows,
            seed=seed_of(self.config.seed, "pool", self.plan.round_index),
            ranks=self.ranks,
        )

    def _tracker(self) -> PriorTracker:
        return PriorTracker(
            config=self.config.prior, rounds=self.data.answered, look_at_pool=self._look_at_pool
        )

    def _state(self, tracker: PriorTracker, pixels: LabelledPixels) -> RefineState:
        return fit_refine_state(
            pixels,
            num_classes=self.data.num_classes,
            config=self.config,
            log_share=tracker.log_share(),
            earlier=self.data.track_record,
        )
