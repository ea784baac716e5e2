import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geohsal.config import Config, config_from_dict
from geohsal.errors import ConfigError, ModelError
from geohsal.models.error_mask import best_class, disagreement, normalised_entropy, top2_margin
from geohsal.models.segmenter import build_segmenter
from geohsal.models.tsf import TeacherStudentFriend, build_inference_networks
from geohsal.models.weights import adapt_bands, load_encoder_weights

SMALL = {
    "arch": "unet",
    "encoder": "tu-resnet10t",
    "encoder_depth": 3,
    "decoder_channels": 8,
    "pixel_channels": 8,
}


def small_config(**ssl: object) -> Config:
    return config_from_dict(
        {"model": SMALL, "emd": {"channels": 8}, "ssl": {"friend": "head", **ssl}}, where="test"
    )


@pytest.mark.parametrize(
    ("arch", "encoder", "depth"),
    [
        ("unet", "resnet18", 3),
        ("unetplusplus", "resnet18", 4),
        ("fpn", "resnet18", 5),
        ("deeplabv3plus", "resnet18", 5),
    ],
)
def test_every_architecture_answers_at_the_resolution_of_its_input(
    arch: str, encoder: str, depth: int
) -> None:
    model = {"arch": arch, "encoder": encoder, "encoder_depth": depth, "decoder_channels": 32}
    config = config_from_dict({"model": model}, where="test")
    output = build_segmenter(config.model, in_channels=5, classes=3).eval()(
        torch.zeros(2, 5, 64, 96)
    )
    assert output.logits.shape == (2, 3, 64, 96)
    assert output.features.shape == (2, 32, 64, 96)


def test_an_unknown_encoder_is_named() -> None:
    config = config_from_dict({"model": {**SMALL, "encoder": "resnet17"}}, where="test")
    with pytest.raises(ConfigError, match=r"model\.encoder 'resnet17' cannot be built"):
        build_segmenter(config.model, in_channels=3, classes=2)


@pytest.mark.parametrize("friend", ["head", "peer", "arch", "none"])
def test_inference_networks_are_rebuilt_from_their_weights(friend: str) -> None:
    config = small_config(friend=friend, friend_encoder="resnet18")
    trained = TeacherStudentFriend(config, bands=4, classes=3)
    image = torch.randn(2, 4, 64, 64)
    with trained.frozen() as frozen:
        before = frozen(image)
        state = {key: value.clone() for key, value in frozen.state_dict().items()}
    again = build_inference_networks(config, bands=4, classes=3).eval()
    again.load_state_dict(state)
    after = again(image)
    assert torch.equal(before.logits, after.logits)
    assert torch.allclose(before.error_logits, after.error_logits, atol=1e-4)
    assert (before.friend_logits is None) == (friend == "none")
    if before.friend_logits is not None and after.friend_logits is not None:
        assert torch.equal(before.friend_logits, after.friend_logits)


def test_friend_and_student_start_apart_and_the_teacher_is_the_student() -> None:
    networks = TeacherStudentFriend(small_config(friend="peer"), bands=4, classes=3)
    student, teacher = networks.student.state_dict(), networks.teacher.state_dict()
    assert all(torch.equal(student[key], teacher[key]) for key in student)
    assert networks.friend is not None
    friend = networks.friend.state_dict()
    assert not torch.equal(friend["decoder.head.weight"], student["decoder.head.weight"])


def test_the_teacher_is_an_exponential_mean_with_its_buffers() -> None:
    networks = TeacherStudentFriend(small_config(), bands=4, classes=3)
    with torch.no_grad():
        for value in networks.student.state_dict().values():
            if value.is_floating_point():
                value.fill_(1.0)
        for value in networks.teacher.state_dict().values():
            if value.is_floating_point():
                value.zero_()
    networks.update_teacher(step=1, ema_max=0.9)  # a = min(1 - 1/2, 0.9)
    networks.update_teacher(step=99, ema_max=0.9)  # a = 0.9
    for name, value in networks.teacher.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, torch.full_like(value, 0.55)), name


def test_freezing_leaves_no_trace_on_norms() -> None:
    networks = TeacherStudentFriend(small_config(), bands=4, classes=3).train()
    before = {key: value.clone() for key, value in networks.student.state_dict().items()}
    modes = [module.training for module in networks.modules()]
    with networks.frozen() as frozen:
        frozen(torch.randn(2, 4, 64, 64))
        assert not any(m.training for m in networks.student.modules() if not list(m.children()))
    assert [module.training for module in networks.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in networks.student.state_dict().items())


def test_the_error_mask_stops_gradients_unless_told_otherwise() -> None:
    for stop in (True, False):
        config = config_from_dict(
            {"model": SMALL, "emd": {"channels": 8, "stop_gradient": stop}}, where="test"
        )
        networks = TeacherStudentFriend(config, bands=4, classes=3)
        features = torch.randn(1, 16, 32, 32, requires_grad=True)
        networks.emd(features, torch.randn(1, 3, 32, 32), None).sum().backward()
        assert (features.grad is None) == stop


def test_doubts_by_hand() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1)
    probabilities = logits.softmax(dim=1)
    assert top2_margin(probabilities).item() == pytest.approx(0.25)
    expected = 1.5 * math.log(2) / math.log(3)
    assert normalised_entropy(probabilities).item() == pytest.approx(expected, 1e-4)
    assert normalised_entropy(torch.full((1, 4, 1, 1), 0.25)).item() == pytest.approx(1.0)
    other = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert disagreement(logits, other).item() == 1.0
    assert disagreement(logits, None).item() == 0.0
    assert best_class(torch.tensor([[1.0, 2.0, 2.0]]).view(1, 3, 1, 1)).item() == 1


def test_a_first_convolution_adapts_to_more_bands_and_keeps_its_response() -> None:
    kernel = torch.randn(2, 3, 3, 3)
    wide = adapt_bands(kernel, bands=6)
    assert wide.shape == (2, 6, 3, 3)
    flat = torch.ones(1, 3, 3, 3)
    assert torch.allclose((kernel * flat).sum(), (wide * torch.ones(1, 6, 3, 3)).sum(), atol=1e-5)


def test_weights_from_a_file(tmp_path: Path) -> None:
    config = small_config()
    source = build_segmenter(config.model, in_channels=3, classes=2).encoder
    target = build_segmenter(config.model, in_channels=4, classes=2).encoder
    path = tmp_path / "weights.safetensors"
    save_file({f"encoder.{k}": v.contiguous() for k, v in source.state_dict().items()}, path)
    load_encoder_weights(target, str(path), name="tu-resnet10t")
    fitting = [k for k, v in source.state_dict().items() if v.shape == target.state_dict()[k].shape]
    assert all(torch.equal(source.state_dict()[k], target.state_dict()[k]) for k in fitting)
    first = next(k for k in source.state_dict() if k not in fitting)
    adapted = target.state_dict()[first][:, :3] * 4 / 3
    assert torch.allclose(adapted, source.state_dict()[first])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    encoder = build_segmenter(small_config().model, in_channels=4, classes=2).encoder
    path = tmp_path / "other.safetensors"
    save_file({"something.else": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"0 of .* belongs to another encoder"):
        load_encoder_weights(encoder, str(path), name="tu-resnet10t")
    with pytest.raises(ModelError, match=r"missing\.safetensors: cannot be read"):
        load_encoder_weights(encoder, str(tmp_path / "missing.safetensors"), name="tu-resnet10t")
    with pytest.raises(ConfigError, match="torchgeo knows no such weights"):
        load_encoder_weights(encoder, "ResNet18_Weights.NOTHING", name="resnet18")
