"""A synthetic landscape with known truth: where fields, roads, water, woods and houses lie.

Nothing here is measured. The demo, the tests and the notebook use it so that they need no download;
`geohsal.geo.landscape_image` turns a layout into an image. All lengths are in pixels, meant as 2 m.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geohsal.geo.scene import ClassInfo

CLASSES = (
    ClassInfo(class_id=0, name="water", color="#2b7bba", description="river and lake"),
    ClassInfo(class_id=1, name="woodland", color="#1b6b2f", description="tree crowns, also single"),
    ClassInfo(class_id=2, name="meadow", color="#a6d96a", description="grass: meadows and gardens"),
    ClassInfo(class_id=3, name="cropland", color="#f0c75e", description="fields, also bare ones"),
    ClassInfo(class_id=4, name="built_up", color="#c0392b", description="roofs, roads and yards"),
    ClassInfo(class_id=5, name="solar", color="#6a3d9a", description="solar parks: the rare class"),
)
WATER, WOODLAND, MEADOW, CROPLAND, BUILT_UP, SOLAR = range(6)


class Material(NamedTuple):
    """What a pixel is made of: its class, reflectance (B, G, R, NIR; x 10 000) and texture.

    `rows`, `mottle` and `speckle` are relative amplitudes of a periodic row pattern, of smooth
    patches and of grain; `vary` is the relative deviation between objects of the same material.
    """

    class_id: int
    spectrum: tuple[float, float, float, float]
    vary: float
    rows: float = 0.0
    mottle: float = 0.0
    speckle: float = 0.0


MATERIALS = (
    Material(WATER, (620, 700, 480, 300), 0.08, mottle=0.05),
    Material(WOODLAND, (330, 560, 380, 2700), 0.06, mottle=0.06, speckle=0.28),  # broadleaf
    Material(WOODLAND, (280, 420, 300, 1900), 0.06, mottle=0.05, speckle=0.28),  # conifer
    Material(MEADOW, (500, 880, 580, 3500), 0.07, mottle=0.10, speckle=0.05),  # fresh
    Material(MEADOW, (640, 980, 880, 2950), 0.07, mottle=0.11, speckle=0.06),  # dry
    Material(CROPLAND, (460, 800, 500, 3900), 0.07, rows=0.12, speckle=0.04),  # green
    Material(CROPLAND, (800, 1180, 1300, 2700), 0.07, rows=0.10, speckle=0.04),  # ripe
    Material(CROPLAND, (900, 1180, 1480, 2150), 0.07, rows=0.08, speckle=0.08),  # bare
    Material(BUILT_UP, (1060, 1180, 1260, 1500), 0.05, speckle=0.05),  # asphalt, gravel
    Material(BUILT_UP, (880, 1000, 1700, 2000), 0.10, speckle=0.05),  # red roofs
    Material(BUILT_UP, (1500, 1620, 1700, 1850), 0.14, speckle=0.03),  # grey roofs, halls
    Material(SOLAR, (640, 660, 640, 980), 0.05, rows=0.35),
)
(
    RIVER,
    BROADLEAF,
    CONIFER,
    FRESH,
    DRY,
    GREEN,
    RIPE,
    BARE,
    PAVED,
    RED_ROOF,
    HALL,
    PANELS,
) = range(len(MATERIALS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A landscape before it is seen; all arrays are (row, col).

    `material` indexes `MATERIALS`; `objects` numbers fields, houses and so on; `shade` multiplies
    the light; `frame` holds the coordinates (u, v) along and across the fields.
    """

    material: NDArray[np.uint8]
    objects: NDArray[np.int32]
    shade: NDArray[np.float32]
    frame: NDArray[np.float32]

    @property
    def truth(self) -> NDArray[np.uint8]:
        """Class id of every pixel."""
        table = np.array([material.class_id for material in MATERIALS], np.uint8)
        classes: NDArray[np.uint8] = table[self.material]
        return classes


class _Plan(NamedTuple):
    """Fields in their own upright frame: number of the field, width of the road (0 none)."""

    field: NDArray[np.int32]
    road: NDArray[np.uint8]
    centres: NDArray[np.float64]


def smooth_noise(
    shape: tuple[int, int], sigma: float, *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise with correlation length `sigma` pixels, mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    scaled: NDArray[np.float32] = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return scaled


def make_layout(height: int, width: int, *, rng: np.random.Generator) -> Layout:
    """A random layout: fields cut by roads, woods, a river and a lake, villages, solar parks.

    All classes find room from about 160 x 160 pixels on.
    """
    shape = (height, width)
    plan = _plan_fields(int(1.5 * max(shape)), rng=rng)
    frame = _frame(shape, plan.field.shape[0], rng=rng)
    index = tuple(np.clip(frame.astype(np.int32), 0, plan.field.shape[0] - 1)[::-1])
    field, road = plan.field[index], plan.road[index]
    kinds = rng.choice([FRESH, DRY, GREEN, RIPE, BARE], len(plan.centres), p=_FIELD_SHARES)
    layout = Layout(
        material=kinds[field].astype(np.uint8),
        objects=field.copy(),
        shade=np.ones(shape, np.float32),
        frame=frame,
    )
    water = _water(shape, rng=rng)
    _plant_woods(layout, rng=rng)
    blocks = _village_blocks(plan, field, water, rng=rng)
    _paint(layout, water, RIVER)
    _build_villages(layout, plan, blocks[:-1], field, free=~water & (road == 0), rng=rng)
    _build_industry(layout, field == blocks[-1], free=~water & (road == 0), rng=rng)
    _paint(layout, road > 0, PAVED)
    _build_solar(layout, field, free=~water & (road == 0), rng=rng)
    _cast_shadows(layout)
    return layout


_FIELD_SHARES = [0.24, 0.16, 0.26, 0.17, 0.17]


def _paint(layout: Layout, mask: NDArray[np.bool_], material: int) -> None:
    """Give the pixels of `mask` a material, as one new object."""
    layout.material[mask] = material
    layout.objects[mask] = int(layout.objects.max()) + 1


def _frame(shape: tuple[int, int], side: int, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """(u, v) of every pixel in the rotated, slightly bent frame of the fields."""
    rows, cols = np.indices(shape, np.float32)
    y, x = rows - shape[0] / 2, cols - shape[1] / 2
    angle = rng.uniform(0.15, 0.65)
    bend = [4.0 * smooth_noise(shape, 45.0, rng=rng) for _ in range(2)]
    u = np.cos(angle) * x + np.sin(angle) * y + bend[0] + side / 2
    v = -np.sin(angle) * x + np.cos(angle) * y + bend[1] + side / 2
    return np.stack([u, v]).astype(np.float32)


def _plan_fields(side: int, *, rng: np.random.Generator) -> _Plan:
    """Cut a square again and again; the first cuts become roads, later ones only borders."""
    field = np.zeros((side, side), np.int32)
    road = np.zeros((side, side), np.uint8)
    centres: list[tuple[float, float]] = []
    stack = [(0, 0, side, side, 0)]
    while stack:
        u0, v0, u1, v1, depth = stack.pop()
        across = (u1 - u0) >= (v1 - v0)
        length = max(u1 - u0, v1 - v0)
        if length < rng.uniform(55, 120):
            field[v0:v1, u0:u1] = len(centres)
            centres.append(((u0 + u1) / 2, (v0 + v1) / 2))
            continue
        cut = int((u0 if across else v0) + length * rng.uniform(0.36, 0.64))
        width = 4 if depth < 2 else 3 if depth < 4 and rng.random() < 0.7 else 0
        band = (slice(v0, v1), slice(cut, cut + width))
        road[band if across else (slice(cut, cut + width), slice(u0, u1))] = width
        if across:
            stack += [(u0, v0, cut, v1, depth + 1), (cut, v0, u1, v1, depth + 1)]
        else:
            stack += [(u0, v0, u1, cut, depth + 1), (u0, cut, u1, v1, depth + 1)]
    return _Plan(field, road, np.array(centres))


def _water(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A river that winds through the scene, and a lake beside it."""
    rows, cols = np.indices(shape, np.float64)
    angle = rng.uniform(-0.5, 0.5)
    along = cols * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - cols * np.sin(angle)
    middle = (shape[0] * np.cos(angle) - shape[1] * np.sin(angle)) * rng.uniform(0.35, 0.65)
    wave = 2 * np.pi / (max(shape) * rng.uniform(0.45, 0.65))
    phase, swing = rng.uniform(0, 2 * np.pi), max(shape) * 0.055
    path = middle + swing * (np.sin(wave * along + phase) + 0.4 * np.sin(2.3 * wave * along))
    slope = swing * wave * np.cos(wave * along + phase)
    half = 5.5 + 1.5 * np.sin(1.7 * wave * along)
    river = np.abs(across - path) / np.hypot(1, slope) < half
    row, col = rng.uniform(0.2, 0.8, 2) * shape
    ragged = 1 + 0.22 * smooth_noise(shape, 14.0, rng=rng)
    radius = 0.075 * max(shape)
    lake = np.hypot((rows - row) / 0.75, cols - col) < radius * ragged
    return np.asarray(river | lake)


def _plant_woods(layout: Layout, *, rng: np.random.Generator) -> None:
    """Woods with natural edges; the conifers stand together."""
    shape = layout.material.shape
    density = smooth_noise(shape, 24.0, rng=rng) + 0.35 * smooth_noise(shape, 6.0, rng=rng)
    woods = density > np.quantile(density, 0.80)
    conifer = smooth_noise(shape, 30.0, rng=rng) > 0.4
    _paint(layout, woods & ~conifer, BROADLEAF)
    _paint(layout, woods & conifer, CONIFER)


def _village_blocks(
    plan: _Plan, field: NDArray[np.int32], water: NDArray[np.bool_], *, rng: np.random.Generator
) -> list[int]:
    """Fields that become two or three village blocks, and one for industry (last)."""
    present, counts = np.unique(field[~water], return_counts=True)
    large = present[counts > 0.35 * np.median(counts)]
    centres = plan.centres[large]
    middle = np.median(centres, axis=0)
    central = np.argsort(np.hypot(*(centres - middle).T), kind="stable")
    start = int(central[rng.integers(0, min(4, len(central)))])
    near = np.argsort(np.hypot(*(centres - centres[start]).T), kind="stable")
    return [int(large[i]) for i in near[: 3 + int(rng.integers(0, 2))]]


def _build_villages(
    layout: Layout,
    plan: _Plan,
    blocks: list[int],
    field: NDArray[np.int32],
    *,
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Gardens with houses on a loose grid, and trees between them."""
    inside = np.isin(field, blocks) & free
    if not inside.any():
        return
    _paint(layout, inside, FRESH)
    core = ndimage.binary_erosion(inside, iterations=2)
    u, v = layout.frame
    trees = np.zeros(field.shape, bool)
    for cell_v in np.arange(v[inside].min(), v[inside].max(), 15.0):
        for cell_u in np.arange(u[inside].min(), u[inside].max(), 16.0):
            du, dv = u - cell_u - rng.uniform(6, 10), v - cell_v - rng.uniform(6, 9)
            half_u, half_v = rng.uniform(3.2, 5.5), rng.uniform(2.8, 4.2)
            tree = (rng.uniform(-8, 8), rng.uniform(-8, 8), rng.uniform(1.5, 3.0))
            if rng.random() < 0.75:
                trees |= np.hypot(du - tree[0], dv - tree[1]) < tree[2]
            house = (np.abs(du) < half_u) & (np.abs(dv) < half_v)
            if rng.random() < 0.85 and house.any() and core[house].all():
                _paint(layout, house, RED_ROOF if rng.random() < 0.7 else HALL)
                layout.shade[house] = np.where(dv[house] > 0, 1.12, 0.86)  # two sides of a roof
    trees &= inside & (layout.material == FRESH)
    _paint(layout, trees, BROADLEAF)


def _build_industry(
    layout: Layout,
    block: NDArray[np.bool_],
    *,
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """A paved yard with halls."""
    yard = ndimage.binary_erosion(block & free, iterations=4)
    if not yard.any():
        return
    _paint(layout, yard, PAVED)
    u, v = layout.frame
    core = ndimage.binary_erosion(yard, iterations=2)
    for cell_v in np.arange(v[yard].min() + 12, v[yard].max(), 28.0):
        for cell_u in np.arange(u[yard].min() + 15, u[yard].max(), 36.0):
            half_u, half_v = rng.uniform(9, 14), rng.uniform(7, 10)
            hall = (np.abs(u - cell_u) < half_u) & (np.abs(v - cell_v) < half_v) & core
            _paint(layout, hall, HALL)


def _build_solar(
    layout: Layout,
    field: NDArray[np.int32],
    *,
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Two small solar parks inside fields: the rare class, under half a per cent."""
    u, v = layout.frame
    fields = free & np.isin(layout.material, (FRESH, DRY, GREEN, RIPE, BARE))
    # villages are painted over their fields with new object numbers: only plain fields remain
    depth = ndimage.distance_transform_edt(fields & (layout.objects == field))
    park_side = 0.028 * max(field.shape)
    for _ in range(2):
        rows, cols = np.nonzero(depth > min(1.5 * park_side, 0.9 * depth.max()))
        pick = int(rng.integers(len(rows)))
        row, col = rows[pick], cols[pick]
        half_u, half_v = park_side * rng.uniform(0.75, 1.0), park_side * rng.uniform(0.45, 0.6)
        near_u, near_v = np.abs(u - u[row, col]), np.abs(v - v[row, col])
        _paint(layout, (near_u < half_u) & (near_v < half_v) & fields, PANELS)
        depth[(near_u < 4 * half_u) & (near_v < 4 * half_v)] = 0


def _cast_shadows(layout: Layout) -> None:
    """Roofs and woods darken what lies to their north-west."""
    for materials, reach in (((RED_ROOF, HALL), 2), ((BROADLEAF, CONIFER), 3)):
        tall = np.isin(layout.material, materials)
        shadow = np.zeros_like(tall)
        for step in range(1, reach + 1):
            shadow[:-step, :-step] |= tall[step:, step:]
        layout.shade[shadow & ~np.isin(layout.material, (RED_ROOF, HALL, BROADLEAF, CONIFER))] *= (
            0.6
        )
