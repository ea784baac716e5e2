"""Each switch of the semi-supervised part means what its name says."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geohsal.config import Config, config_from_dict
from geohsal.data.augment import StrongViews, UnlabelledView
from geohsal.data.dataset import BandScale
from geohsal.errors import ConfigError
from geohsal.geo.states import PixelState
from geohsal.models.tsf import InferenceNetworks, TeacherStudentFriend
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.crops import RoundData
from geohsal.training.judgement import RefineState, fit_refine_state
from geohsal.training.losses import weighted_pseudo_loss
from geohsal.training.module import RoundPlan, TsfModule
from geohsal.training.probe import Discriminants, LinearProbe, Tutor, probe_loss
from geohsal.training.pseudo_labels import judged_view, labelling_networks, streams_of
from geohsal.training.shares import Counts

BANDS, CLASSES, SIDE, BATCH = 3, 3, 32, 2
OFF = {"emd": {"enabled": False}, "plar": {"rule": "none"}}


def settings(ssl: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Config:
    model = {"arch": "unet", "encoder": "tu-resnet10t", "encoder_depth": 3, "decoder_channels": 8}
    ramp = {"warm_share": 0.0, "ramp_share": 0.0, "confidence_fallback": 0.0}
    return config_from_dict(
        {
            "model": {**model, "pixel_channels": 4},
            "ssl": {"friend": "none", **ramp, **(ssl or {})},
            "emd": {"channels": 8, **sections.get("emd", {})},
            "plar": {"dim": 4, **sections.get("plar", {})},
            "train": sections.get("train", {}),
        },
        where="test",
    )


def networks_of(config: Config, seed: int = 0) -> TeacherStudentFriend:
    torch.manual_seed(seed)
    return TeacherStudentFriend(config, bands=BANDS, classes=CLASSES)


def shake(network: torch.nn.Module, seed: int) -> None:
    """Other weights, so that the network names other classes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))


def batch(seed: int = 1) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    size = (BATCH, SIDE, SIDE)
    labels = torch.full(size, 255)
    labels[:, :16, :8] = 0
    labels[:, :16, 8:16] = 1
    labels[:, 16:20, :16] = 2
    withheld = torch.full(size, 255)
    withheld[:, 24:, :] = torch.randint(CLASSES, (BATCH, 8, SIDE), generator=generator)
    yes = torch.ones(size, dtype=torch.bool)
    image = torch.randn(BATCH, BANDS, SIDE, SIDE, generator=generator)
    other = torch.randn(BATCH, BANDS, SIDE, SIDE, generator=generator)
    return {
        "labelled": {"image": image, "mask": labels, "withheld": withheld, "valid": yes},
        "unlabelled": {
            "image": other,
            "mask": torch.full(size, 255),
            "valid": yes,
            "train": yes.clone(),
        },
    }


def refresh_with(config: Config) -> Any:
    """Statistics of whatever networks are asked, on labels of a batch of its own."""

    def refresh(networks: InferenceNetworks) -> RefineState:
        made = batch(seed=9)["labelled"]
        output = networks(made["image"])
        known = made["mask"] != 255
        confidence, said = output.logits.softmax(dim=1).max(dim=1)
        label = made["mask"][known].numpy()
        region = np.arange(len(label)) // 16
        pixels = LabelledPixels(
            features=output.features.permute(0, 2, 3, 1)[known].numpy(),
            label=label,
            region=region,
            withheld=region % 4 == 0,
            teacher=said[known].numpy(),
            confidence=confidence[known].double().numpy(),
            error=output.error_logits[known].sigmoid().double().numpy(),
        )
        return fit_refine_state(pixels, num_classes=CLASSES, config=config)

    return refresh


def module_of(
    config: Config,
    networks: TeacherStudentFriend,
    *,
    round_index: int = 0,
    tutor: Tutor | None = None,
) -> TsfModule:
    module = TsfModule(
        networks,
        config=config,
        plan=RoundPlan(round_index=round_index, parts=1, part_steps=4),
        class_names=("a", "b", "c"),
        class_pixels=torch.tensor([256, 256, 128]),
        refresh=refresh_with(config),
        validate=lambda _: None,
        told=lambda: False,
        tutor=tutor,
    )
    module.train()
    module.begin_part()
    return module


def weak_view(config: Config, networks: TeacherStudentFriend) -> UnlabelledView:
    with torch.no_grad():
        with networks.frozen():
            state = refresh_with(config)(labelling_networks(networks, config.ssl))
        made = batch()["unlabelled"]
        view, _ = judged_view(networks, made["image"], made, state=state, config=config)
    return view


@pytest.mark.parametrize(
    ("ssl", "sections"),
    [
        ({"enabled": False}, {}),
        ({}, OFF),
        ({"friend": "head"}, OFF),
        ({"friend": "peer"}, OFF),
        ({"friend": "arch", "friend_encoder": "resnet18"}, OFF),
        ({}, {"plar": {"rule": "none"}}),
        ({"friend": "head"}, {"emd": {"enabled": False}}),
        ({"friend": "head"}, {"plar": {"rule": "faithful"}}),
        ({"friend": "head"}, {"plar": {"rule": "robust"}}),
        ({"friend": "head"}, {"plar": {"rule": "knn"}}),
        ({"consistency": "fixmatch"}, OFF),
        ({"consistency": "fixmatch", "friend": "head"}, {}),
        ({"consistency": "unimatch"}, OFF),
        ({"consistency": "unimatch", "friend": "head"}, {}),
        ({"consistency": "unimatch", "friend": "peer"}, OFF),
        ({"teacher": "previous", "contrast_weight": 0.1, "class_mix": "classmix"}, OFF),
        ({"class_mix": "none"}, OFF),
        ({"contrast_weight": 0.1, "friend": "head"}, {}),
    ],
)
def test_every_combination_trains(ssl: dict[str, Any], sections: dict[str, Any]) -> None:
    config = settings(ssl, **sections)
    networks = networks_of(config)
    if config.ssl.teacher == "previous":
        networks.label_by(networks_of(config, seed=3).teacher)
    module = module_of(config, networks)
    loss = module.training_step(batch(), 0)
    loss.backward()
    assert torch.isfinite(loss)
    expected = {"supervised", "loss"}
    expected |= {"friend"} if networks.friend is not None else set()
    expected |= {"unsupervised"} if config.ssl.enabled else set()
    expected |= {"error_mask"} if config.emd.enabled else set()
    expected |= {"contrast"} if config.ssl.contrast_weight else set()
    assert set(module.part.losses) == expected
    learned = {
        name.split(".")[0]
        for name, parameter in networks.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    wanted = {"student"} | ({"emd"} if config.emd.enabled else set())
    wanted |= {"friend"} if networks.friend is not None else set()
    assert learned == wanted | ({"projection"} if config.ssl.contrast_weight else set())


def some_tutor() -> Tutor:
    """Sure of class 1 wherever the first band is above 0, of class 2 elsewhere."""
    size = BANDS * 5
    weight = np.zeros((CLASSES, size))
    weight[1, 0], weight[2, 0] = 50.0, -50.0
    made = Discriminants(
        mean=np.zeros(size), spread=np.ones(size), weight=weight, bias=np.zeros(CLASSES)
    )
    return Tutor(LinearProbe(None, made, temperature=1.0), right={})


@pytest.mark.parametrize("friend", ["none", "head", "peer"])
def test_both_learners_are_tutored_from_the_first_step(friend: str) -> None:
    config = settings({"friend": friend, "warm_share": 1.0, "probe_weight": 2.0})
    module = module_of(config, networks_of(config), tutor=some_tutor())
    module.training_step(batch(), 0)
    losses = {name: float(value) for name, value in module.part.losses.items()}
    assert "unsupervised" not in losses
    others = losses["supervised"] + losses.get("friend", 0.0)
    others += config.emd.weight * losses["error_mask"]
    assert losses["loss"] == pytest.approx(others + 2.0 * losses["probe"], rel=1e-4)
    assert module.guard.counts()["pixels"] == 0  # nothing was believed yet
    with torch.no_grad():
        streams = module._streams(batch()["unlabelled"], believed=False)
    view = streams.first
    assert view.probe is not None
    counts = Counts(labelled=None, views=(None,), error_scale=1.0)
    student, other = torch.randn(2, BATCH, CLASSES, SIDE, SIDE)
    alone = probe_loss(student, view.probe, view.counted)
    both = alone + probe_loss(other, view.probe, view.counted)
    assert torch.isclose(module._distillation(student, None, streams, counts), alone)
    assert torch.isclose(module._distillation(student, other, streams, counts), both)


def test_the_probe_is_asked_at_its_own_scale_and_moves_with_the_image() -> None:
    config = settings({"probe_weight": 1.0})
    module = module_of(config, networks_of(config), tutor=some_tutor())
    given = batch()["unlabelled"]
    torch.manual_seed(4)
    image, maps, said = module._weak_view(given)
    torch.manual_seed(4)
    plain, plain_maps = module._weak(
        given["image"], {key: given[key] for key in ("mask", "valid", "train")}
    )
    assert torch.allclose(image, plain)
    assert all(torch.equal(maps[key], plain_maps[key]) for key in maps)
    assert said is not None
    assert said.shape == (BATCH, CLASSES, SIDE, SIDE)
    clear = (image[:, 0].abs() > 0.5) & maps["valid"]  # interpolation keeps the sign there
    right = (said[:, 1] > said[:, 2]) == (image[:, 0] > 0)
    assert right[clear].float().mean() > 0.9


@pytest.mark.parametrize("on", [True, False])
def test_whether_it_is_tutored_travels_in_checkpoints(on: bool) -> None:
    config = settings({"probe_weight": 1.0})
    module = module_of(config, networks_of(config), tutor=some_tutor())
    assert module._tutor is not None
    module._tutor.on = on
    saved: dict[str, Any] = {"loops": {}}
    module.on_save_checkpoint(saved)
    again = module_of(config, networks_of(config), tutor=some_tutor())
    again.on_load_checkpoint(saved)
    assert again._tutor is not None
    assert again._tutor.on is on
    again.training_step(batch(), 0)
    assert ("probe" in again.part.losses) is on


def test_a_plain_mean_teacher_uses_every_confident_pixel() -> None:
    everything_suspect = {"enabled": False, "threshold_fallback": 0.0}
    config = settings(emd=everything_suspect, plar={"rule": "none"})
    view = weak_view(config, networks_of(config))
    assert (view.state == PixelState.AMBIGUOUS).all()
    assert (view.weight == 1).all()
    vetoed = settings(emd={**everything_suspect, "enabled": True}, plar={"rule": "none"})
    assert not weak_view(vetoed, networks_of(vetoed)).weight.any()


def test_confidence_still_gates_a_plain_mean_teacher() -> None:
    config = settings({"confidence_fallback": 1.0}, **OFF)
    assert not weak_view(config, networks_of(config)).weight.any()


def test_without_an_error_decoder_no_crop_is_drawn_for_it() -> None:
    def opener(scene_id: str) -> Any:
        raise AssertionError(scene_id)

    data = RoundData(
        opener=opener,
        scale=BandScale(mean=(0.0,), std=(1.0,)),
        regions=(),
        withheld=frozenset({"s#1", "s#2", "s#3"}),
        areas=(),
        class_names=("a",),
    )
    assert len(data.learn_errors_at(settings())) == 2
    assert data.learn_errors_at(settings(**OFF)) == frozenset()


@pytest.mark.parametrize(
    ("ssl", "labeller"),
    [
        ({}, "teacher"),
        ({"consistency": "fixmatch"}, "student"),
        ({"consistency": "unimatch"}, "student"),
        ({"teacher": "previous"}, "previous"),
    ],
)
def test_who_labels(ssl: dict[str, Any], labeller: str) -> None:
    config = settings(ssl, **OFF)
    networks = networks_of(config)
    for seed, name in enumerate(("teacher", "student"), start=20):
        shake(getattr(networks, name), seed)
    other = networks_of(config, seed=5)
    shake(other.teacher, 30)
    networks.label_by(other.teacher)
    image = batch()["unlabelled"]["image"]
    said = {}
    with torch.no_grad(), networks.frozen():
        for name in ("teacher", "student", "previous"):
            said[name] = getattr(networks, name)(image).logits.argmax(dim=1)
    target = weak_view(config, networks).target
    for name, labels in said.items():
        assert torch.equal(labels, target) == (name == labeller), name


def test_the_previous_teacher_is_frozen_and_travels_in_checkpoints() -> None:
    config = settings({"teacher": "previous"}, **OFF)
    networks, last = networks_of(config), networks_of(config, seed=5)
    networks.label_by(last.teacher)
    networks.train()
    assert networks.previous is not None
    assert not any(module.training for module in networks.previous.modules())
    assert not any(parameter.requires_grad for parameter in networks.previous.parameters())
    networks.update_teacher(step=3, ema_max=0.5)
    saved = networks.state_dict()
    for name, value in last.teacher.state_dict().items():
        assert torch.equal(saved[f"previous.{name}"], value)
    with networks.frozen() as frozen:
        assert not any(name.startswith("previous") for name in frozen.state_dict())
        assert not any(name.startswith("projection") for name in frozen.state_dict())


def test_self_labelling_and_a_previous_teacher_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"ssl\.teacher previous needs ssl\.consistency ema"):
        settings({"teacher": "previous", "consistency": "unimatch"})


def test_before_the_first_round_nothing_but_labels_is_learned_from() -> None:
    config = settings({"first_round": 2, "contrast_weight": 0.1}, **OFF)
    for round_index, expected in ((1, {"supervised", "loss"}), (2, {"unsupervised", "contrast"})):
        module = module_of(config, networks_of(config), round_index=round_index)
        module.training_step(batch(), 0)
        assert expected <= set(module.part.losses)
        assert ("unsupervised" in module.part.losses) == (round_index == 2)
    assert not settings({"enabled": False}).ssl.active(5)


def test_unimatch_shows_two_strong_views_and_the_weak_one() -> None:
    config = settings({"consistency": "unimatch"}, **OFF)
    networks = networks_of(config)
    view = weak_view(config, networks)
    torch.manual_seed(2)
    streams = streams_of(view, StrongViews(config.augment), consistency="unimatch")
    assert streams.shares == (0.25, 0.25, 0.5)
    assert streams.views[2] is view
    assert streams.perturbed == 1
    assert not torch.equal(streams.views[0].image, streams.views[1].image)
    module = module_of(config, networks)
    logits = torch.randn(3 * BATCH, CLASSES, SIDE, SIDE)
    counts = Counts(labelled=None, views=(None,) * 3, error_scale=1.0)
    by_hand = sum(
        share * weighted_pseudo_loss(part, one.target, one.weight, one.counted)
        for share, part, one in zip(streams.shares, logits.chunk(3), streams.views, strict=True)
    )
    assert torch.isclose(
        module._consistency(logits, None, streams, counts), torch.as_tensor(by_hand)
    )


def test_only_the_last_images_are_perturbed_and_the_friend_sees_the_first() -> None:
    config = settings({"friend": "head"})
    networks = networks_of(config).eval()
    image = torch.randn(4, BANDS, SIDE, SIDE)
    with torch.no_grad():
        plain, _ = networks.student_and_friend(image, friend_sees=4)
        torch.manual_seed(0)
        changed, friend = networks.student_and_friend(image, friend_sees=2, perturbed=1)
    assert torch.allclose(plain.logits[:3], changed.logits[:3], atol=1e-5)
    assert not torch.allclose(plain.logits[3], changed.logits[3], atol=1e-2)
    assert friend is not None
    assert friend.logits.shape[0] == 2


def test_freezing_restores_the_student_that_labelled() -> None:
    config = settings({"consistency": "fixmatch"}, **OFF)
    networks = networks_of(config).train()
    modes = [module.training for module in networks.modules()]
    with networks.frozen():
        labelling_networks(networks, config.ssl).eval()
    assert [module.training for module in networks.modules()] == modes


def test_a_restarted_round_warms_up_unless_the_last_model_labels() -> None:
    config = settings({"warm_share": 0.5}, **OFF, train={"restart": True})
    anew = module_of(config, networks_of(config), round_index=3)
    assert anew._unsupervised_weight() == 0.0
    networks = networks_of(config)
    networks.label_by(networks_of(config, seed=4).teacher)
    assert module_of(config, networks, round_index=3)._unsupervised_weight() == 1.0
