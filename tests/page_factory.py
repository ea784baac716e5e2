"""Review pages: a round with pictures, and a Chromium that opens them without a network."""

import base64
import hashlib
import html
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from review_factory import reader_of
from scipy import ndimage

from geohsal.config import OutputConfig
from geohsal.geo.scene import ClassInfo, QueryRegion, Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.cog import write_cog
from geohsal.io.review_page import write_page
from geohsal.io.run import Round, Run

COLORS = ("#1b6b2f", "#c0392b", "#2f6fb0", "#d9b44a", "#8e6fae", "#5c5c5c", "#7fc97f", "#f28e2b")
NAMES = ("woodland", "built-up", "water", "arable land", "heath", "road", "grassland", "bare soil")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRound:
    """A round with maps and `view` rasters, of which pages can be written."""

    round: Round
    scene: Scene
    maps: SceneMaps
    regions: tuple[QueryRegion, ...]
    classes: tuple[ClassInfo, ...]

    def write(self, name: str = "queries_r000.gpkg", **changes: object) -> Path:
        """The page."""
        settings = {
            "round_": self.round,
            "regions": self.regions,
            "scenes": {self.scene.scene_id: self.scene},
            "maps": reader_of({self.scene.scene_id: self.maps}),
            "classes": self.classes,
            "config": OutputConfig(),
            "run": "my-town",
            "request": "0123456789abcdef" * 4,
        } | changes
        return write_page(self.round.dir / name, **settings)  # type: ignore[arg-type]


def classes_named(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """Classes of these names."""
    return tuple(
        ClassInfo(class_id=i, name=name, color=COLORS[i % len(COLORS)])
        for i, name in enumerate(names)
    )


def page_round(
    folder: Path,
    *,
    names: Sequence[str] = NAMES,
    count: int = 6,
    cell: int = 32,
    reason: str = "half of it undecided; rare class",
) -> PageRound:
    """A scene of blobs, its picture, and `count` regions."""
    per_row = int(np.ceil(np.sqrt(count)))
    side = (2 * per_row + 1) * cell
    rng = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(rng.normal(size=(min(len(names), 8), side, side)), (0, 6, 6))
    refined = blobs.argmax(0).astype(np.uint8)
    zeros = np.zeros((side, side), np.float32)
    state = np.full((side, side), PixelState.TRUSTED, np.uint8)
    maps = SceneMaps(
        teacher=refined, refined=refined, plar=refined, state=state, confidence=zeros,
        error=zeros, margin=zeros, undecided=zeros,
    )  # fmt: skip
    scene = Scene(
        scene_id="north", crs=CRS.from_epsg(32632), transform=Affine(1, 0, 5e5, 0, -1, 5.2e6),
        height=side, width=side, bands=("red", "green", "blue"),
    )  # fmt: skip
    round_ = Run(path=folder).round(0)
    palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLORS])
    drawn = 0.5 * palette[refined].transpose(2, 0, 1) + 60
    drawn = (
        drawn + rng.normal(scale=14, size=(1, side, side)) + rng.normal(scale=5, size=drawn.shape)
    )
    view = np.clip(drawn, 1, 255).astype(np.uint8)
    view[:, :20, :20] = 0
    write_cog(
        round_.raster("north", "view"), view, scene=scene, nodata=0,
        band_names=("red", "green", "blue"), overview_resampling="average",
    )  # fmt: skip
    regions = []
    for rank in range(1, count + 1):
        row, col = divmod(rank - 1, per_row)
        top, left = (2 * row + 1) * cell, (2 * col + 1) * cell
        mask = np.ones((cell, cell), bool)
        if rank == 2:
            mask[:9, :11] = False
        regions.append(
            QueryRegion(
                region_id=f"north_r{top:06d}_c{left:06d}", scene_id="north", round=0, rank=rank,
                cell=Window(left, top, cell, cell), mask=mask, score=1 / rank, reason=reason,
                error_probability=0.41, undecided_share=0.5, teacher_class=1,
                plar_class=0 if rank == 1 else None, margin=0.1, area_m2=float(mask.sum()),
                cost_min=0.4, audit=rank == 3,
            )
        )  # fmt: skip
    return PageRound(
        round=round_, scene=scene, maps=maps, regions=tuple(regions), classes=classes_named(names)
    )


def find_chromium() -> str | None:
    """The browser, by CHROMIUM or its usual names."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def browse(page: Path, *options: str, profile: Path, budget_ms: int = 6000) -> str:
    """What headless Chromium prints of a page, with every name of the network made unknown."""
    budget = f"--virtual-time-budget={budget_ms}"
    return chromium(page, "--hide-scrollbars", budget, *options, profile=profile)[0]


def chromium(page: Path, *options: str, profile: Path) -> tuple[str, str]:
    """What headless Chromium prints of a page, and what it says to its log.

    Now and then it prints all and does not end: it is asked once more, with a new profile.
    """
    browser = find_chromium()
    assert browser
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", *options,
    ]  # fmt: skip

    def ask(folder: Path) -> tuple[str, str]:
        whole = [*command, f"--user-data-dir={folder}", page.as_uri()]
        done = subprocess.run(whole, capture_output=True, timeout=120, check=True)
        return done.stdout.decode(), done.stderr.decode()

    try:
        return ask(profile)
    except subprocess.TimeoutExpired:
        return ask(profile.with_name(f"{profile.name}_again"))


def with_script(page: Path, script: str, out: Path) -> Path:
    """A copy of a page that runs one more script; its policy is changed for that script alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text("utf-8")
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    out.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return out


def shown(dom: str) -> Mapping[str, str]:
    """What the test script left in `<pre id=result-NAME>` elements."""
    found = re.findall(r'<pre id="result-(\w+)">(.*?)</pre>', dom, flags=re.DOTALL)
    return {name: html.unescape(text) for name, text in found}
