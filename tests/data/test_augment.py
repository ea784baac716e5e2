import pytest
import torch

from geohsal.config import AugmentConfig
from geohsal.data.augment import (
    StrongViews,
    UnlabelledView,
    WeakViews,
    classmix,
    cutmix,
    photometric,
)


def coordinates(size: int) -> torch.Tensor:
    """An image whose two bands are row and column, each unique, and never 0."""
    row = torch.arange(1, size + 1, dtype=torch.float32)
    return torch.stack([row[:, None].expand(size, size), row[None, :].expand(size, size)])


def test_image_and_maps_move_together() -> None:
    size = 12
    image = coordinates(size).expand(8, 2, size, size).contiguous()
    labels = ((image[:, 0] * 5 + image[:, 1]) % 7).long()
    valid = torch.ones(8, size, size, dtype=torch.bool)
    views = WeakViews(AugmentConfig(scale=(1.0, 1.0)))
    torch.manual_seed(3)
    moved, maps = views(image, {"mask": labels, "valid": valid})
    assert not torch.equal(moved, image)
    assert torch.equal(maps["mask"], ((moved[:, 0] * 5 + moved[:, 1]).round() % 7).long())
    assert maps["valid"].all()


def test_what_a_zoom_uncovers_is_invalid_and_unlabelled() -> None:
    image = torch.ones(4, 2, 16, 16)
    labels = torch.zeros(4, 16, 16, dtype=torch.int64)
    views = WeakViews(AugmentConfig(scale=(0.5, 0.5), scale_p=1.0))
    torch.manual_seed(0)
    _, maps = views(image, {"mask": labels, "valid": torch.ones(4, 16, 16, dtype=torch.bool)})
    assert 0.15 < maps["valid"].float().mean() < 0.4
    assert torch.equal(maps["mask"] == 255, ~maps["valid"])
    assert set(maps["mask"].unique().tolist()) == {0, 255}


def test_unlabelled_stays_unlabelled_and_the_largest_class_survives() -> None:
    labels = torch.full((2, 8, 8), 255)
    labels[:, 2:5] = 254
    _, maps = WeakViews(AugmentConfig(scale=(1.0, 1.0)))(torch.zeros(2, 1, 8, 8), {"mask": labels})
    assert set(maps["mask"].unique().tolist()) == {254, 255}
    assert (maps["mask"] == 254).sum() == (labels == 254).sum()


def test_radiometry_leaves_invalid_pixels_at_zero() -> None:
    valid = torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[:, :2] = True
    changed = photometric(torch.ones(2, 3, 4, 4), valid, gain=0.3, offset=0.3, noise=0.1)
    assert not changed[:, :, 2:].any()
    assert (changed[:, :, :2] != 1).all()


def test_cutmix_moves_every_map() -> None:
    batch, size = 4, 16
    marks = torch.arange(batch).view(-1, 1, 1).expand(batch, size, size).contiguous()
    view = UnlabelledView(
        image=marks[:, None].float().expand(batch, 2, size, size).contiguous(),
        target=marks,
        weight=marks.float(),
        friend_target=marks,
        friend_weight=marks.float(),
        student_target=marks,
        student_weight=marks.float(),
        state=marks,
        counted=marks > 1,
        valid=marks > 1,
        probe=marks[:, None].float().expand(batch, 3, size, size).contiguous(),
    )
    torch.manual_seed(1)
    mixed = cutmix(view, probability=1.0)
    source = mixed.target
    assert (source != marks).any()
    assert torch.equal(mixed.image[:, 0].long(), source)
    assert mixed.probe is not None
    assert (mixed.probe.long() == source[:, None]).all()
    for name in (
        "weight",
        "friend_target",
        "friend_weight",
        "student_target",
        "student_weight",
        "state",
    ):
        assert torch.equal(getattr(mixed, name).long(), source), name
    assert torch.equal(mixed.counted, source > 1)
    assert torch.equal(mixed.valid, source > 1)
    assert torch.equal(cutmix(view, probability=0.0).target, marks)


def crops(target: torch.Tensor, *, valid: torch.Tensor | None = None) -> UnlabelledView:
    """Crops whose every map tells the crop (tens) and the pseudo-label (units) of a pixel."""
    marks = torch.arange(len(target)).view(-1, 1, 1) * 10 + target
    return UnlabelledView(
        image=marks[:, None].float(),
        target=target,
        weight=marks.float(),
        friend_target=marks,
        friend_weight=marks.float(),
        student_target=marks,
        student_weight=marks.float(),
        state=marks,
        counted=marks > 15,
        valid=torch.ones_like(target, dtype=torch.bool) if valid is None else valid,
    )


def four_classes(batch: int, *, size: int = 8) -> torch.Tensor:
    """Class c in quarter c of each crop."""
    quarter = torch.arange(size) * 4 // size
    return quarter.expand(batch, size, size).contiguous()


def test_classmix_pastes_half_of_the_classes_with_every_map() -> None:
    target = four_classes(3)
    view = crops(target)
    torch.manual_seed(0)
    mixed = classmix(view, probability=1.0, class_pixels=torch.full((4,), 100))
    marks = mixed.state
    for item in range(3):
        pasted = marks[item] // 10 != item
        assert set((marks[item] // 10).unique().tolist()) == {item, (item - 1) % 3}
        assert len(target[item][pasted].unique()) == 2
        assert pasted.sum() == target[item].numel() // 2
    assert torch.equal(mixed.target, marks % 10)
    assert torch.equal(mixed.image[:, 0].long(), marks)
    for name in ("weight", "friend_target", "friend_weight", "student_target", "student_weight"):
        assert torch.equal(getattr(mixed, name).long(), marks), name
    assert torch.equal(mixed.counted, marks > 15)


def test_classmix_rather_pastes_rare_classes() -> None:
    view = crops(four_classes(2))
    counts = torch.tensor([10_000, 10_000, 1, 0])  # the last has no labels: as the most common
    torch.manual_seed(0)
    pasted = torch.zeros(4)
    for _ in range(100):
        state = classmix(view, probability=1.0, class_pixels=counts).state[0]
        pasted[(state[state >= 10] % 10).unique()] += 1
    assert pasted.sum() == 200
    assert pasted[2] > 95
    assert (pasted[[0, 1, 3]] > 20).all()


@pytest.mark.parametrize(
    ("target", "probability"),
    [(torch.zeros(2, 4, 4, dtype=torch.int64), 1.0), (four_classes(2, size=4), 0.0)],
    ids=["one class", "never"],
)
def test_classmix_without_half_a_class_changes_nothing(
    target: torch.Tensor, probability: float
) -> None:
    mixed = classmix(crops(target), probability=probability, class_pixels=torch.ones(4))
    assert torch.equal(mixed.state, crops(target).state)


def test_classmix_pastes_no_nodata() -> None:
    target = four_classes(2)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[1, :4] = False
    torch.manual_seed(0)
    mixed = classmix(crops(target, valid=valid), probability=1.0, class_pixels=torch.ones(4))
    assert (mixed.state[0, :4] < 10).all()
    assert (mixed.state[0, 4:] >= 10).any()
    assert mixed.valid[0].all()


def test_strong_views_mix_as_told() -> None:
    view = crops(four_classes(2))
    still = AugmentConfig(gain=0, offset=0, noise=0, blur_p=0, cutmix_p=1.0)
    states = {}
    for mix in ("cutmix", "classmix", "none"):
        torch.manual_seed(0)
        states[mix] = StrongViews(still, mix=mix, class_pixels=torch.ones(4))(view).state
    assert torch.equal(states["none"], view.state)
    assert not torch.equal(states["cutmix"], view.state)
    stripes = (states["classmix"][0] >= 10).float()
    assert torch.equal(stripes, stripes[:1].expand_as(stripes))  # whole classes, not a box
    assert not torch.equal(states["classmix"], states["cutmix"])
