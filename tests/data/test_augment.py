import torch

from geohsal.config import AugmentConfig
from geohsal.data.augment import UnlabelledView, WeakViews, cutmix, photometric


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
    )
    torch.manual_seed(1)
    mixed = cutmix(view, probability=1.0)
    source = mixed.target
    assert (source != marks).any()
    assert torch.equal(mixed.image[:, 0].long(), source)
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
