"""The picture is drawn whole, readable, and without a display."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread
from shapely.geometry import box

from geohsal.geo.landscape import CLASSES
from geohsal.workflows.picture import Panels, draw, natural_colour


def test_natural_colour_stretches_valid_pixels_and_leaves_the_rest_white() -> None:
    image = np.stack([np.linspace(0, 100, 64).reshape(8, 8)] * 3).astype(np.float32)
    valid = np.ones((8, 8), bool)
    valid[0] = False
    picture = natural_colour(image, valid)
    assert picture.shape == (8, 8, 3)
    assert (picture[0] == 1).all()
    assert picture[1:].min() == 0
    assert picture[1:].max() == 1


def test_a_picture_shows_the_class_colours_of_truth(tmp_path: Path) -> None:
    truth = np.repeat(np.arange(6, dtype=np.uint8), 8)[None].repeat(40, axis=0)
    panels = Panels(
        title="test",
        picture=np.ones((40, 48, 3), np.float32),
        truth=truth,
        predicted=np.where(truth == 5, 255, truth).astype(np.uint8),
        error=np.full((40, 48), np.nan, np.float32),
        asked=[(box(8, 8, 24, 24), False), (box(24, 8, 40, 24), True)],
        classes=CLASSES,
    )
    path = tmp_path / "picture.png"
    draw(panels, path)
    pixels = np.rint(imread(path) * 255).astype(np.uint8)
    assert pixels.shape[1] >= 1600
    colours = {tuple(colour) for colour in pixels[..., :3].reshape(-1, 3)}
    for info in CLASSES:
        assert tuple(bytes.fromhex(info.color[1:])) in colours
