"""The frame: table, skin, fat, muscle, lungs, spine and ribs."""

from dataclasses import dataclass

import numpy as np

from nnunet_livseg.data.phantom.fields import Array
from nnunet_livseg.data.phantom.shapes import (
    EVERYWHERE,
    Shape,
    cylinder,
    ellipsoid,
    half_space,
    rotation,
    smooth_union,
)

VERTEBRA_MM = 33.0  # height of a vertebra with its disc
RIB_MM = 27.0  # distance of ribs along z
Part = tuple[Shape, str]  # a shape and the name of its tissue


@dataclass(frozen=True)
class Torso:
    """Measures of one patient's trunk in mm; the origin is the middle of the trunk at the height of the liver's center.

    Args:
        half_width: Skin to midline, left-right.
        half_depth: Half of front to back.
        fat_side, fat_front: Thickness of the fat under the skin.
        spine_y: Center of the vertebral bodies, behind the origin.
        disc_z: Height of one disc.
        dome_right, dome_left: Height of the two domes of the diaphragm.
    """

    half_width: float
    half_depth: float
    fat_side: float
    fat_front: float
    spine_y: float
    disc_z: float
    dome_right: float
    dome_left: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Torso":
        fat = rng.uniform(0.0, 1.0)
        return cls(
            half_width=149 + 12 * fat + rng.uniform(-4, 4),
            half_depth=113 + 9 * fat + rng.uniform(-3, 3),
            fat_side=8 + 14 * fat,
            fat_front=9 + 15 * fat,
            spine_y=45 + rng.uniform(-2, 2),
            disc_z=rng.uniform(0, VERTEBRA_MM),
            dome_right=rng.uniform(74, 90),
            dome_left=rng.uniform(64, 78),
        )

    def hull(self, inset_side: float, inset_front: float, inset_back: float) -> Shape:
        """The trunk's outline, smaller by the given amounts."""
        front, back = -self.half_depth + inset_front, self.half_depth - inset_back
        return cylinder(((front + back) / 2, 0.0), ((back - front) / 2, self.half_width - inset_side), power=2.5)

    @property
    def muscle(self) -> Shape:
        """Outer surface of the muscles of the wall."""
        return self.hull(self.fat_side, self.fat_front, 9 + 0.4 * self.fat_side)

    @property
    def cavity(self) -> Shape:
        """Inner surface of the wall."""
        return self.hull(self.fat_side + 14, self.fat_front + 10, 26 + 0.4 * self.fat_side)

    def diaphragm(self, gap_mm: float = 0.0) -> Shape:
        """Everything below the diaphragm (two domes over the cavity), lower by ``gap_mm``."""
        width = self.half_width - self.fat_side - 14
        front, back = -self.half_depth + self.fat_front + 10, self.half_depth - 26 - 0.4 * self.fat_side
        depth, middle = (back - front) / 2, (back + front) / 2

        def function(z: Array, y: Array, x: Array) -> Array:
            square = np.square((y - middle + 8) / (depth + 4))
            right = self.dome_right - 105 * (np.square((x + 0.42 * width) / (0.62 * width)) + square) ** 2 * 0.5
            left = self.dome_left - 105 * (np.square((x - 0.45 * width) / (0.60 * width)) + square) ** 2 * 0.5
            top = np.maximum(np.maximum(right, left), self.dome_left - 28 - 60 * square - 0.001 * np.square(x))
            return (z - np.maximum(top, -45 - 0.25 * (y - middle))) * 0.7 + gap_mm

        return Shape(function)


def wall(torso: Torso) -> list[Part]:
    """Table, skin, fat, muscles and the fat of the cavity, from outside inwards."""
    muscle, cavity = torso.muscle, torso.cavity
    stripe = (torso.hull(torso.fat_side + 6, torso.fat_front + 4.5, 60)) - torso.hull(
        torso.fat_side + 7.6, torso.fat_front + 6, 61.6
    )
    front = half_space((0, 1, 0), 40.0)  # the stripe of fat between the oblique muscles does not reach the back
    return [
        *_table(torso),
        (torso.hull(0, 0, 0), "skin"),
        (torso.hull(2.0, 2.0, 2.5), "fat"),
        (muscle, "muscle"),
        (stripe & front, "fat"),
        (cavity, "fat"),
    ]


def _table(torso: Torso) -> list[Part]:
    def curve(top_mm: float) -> Shape:
        def function(z: Array, y: Array, x: Array) -> Array:
            return torso.half_depth + top_mm - 0.0016 * np.square(x) - y + 0 * z

        return Shape(function)

    width = cylinder((torso.half_depth, 0.0), (200.0, 205.0))
    outer = (curve(3) & width) - curve(24)
    inner = (curve(5) & width) - curve(22)
    return [(outer, "table shell"), (inner, "table foam")]


def back_muscles(torso: Torso) -> list[Part]:
    """Erector of the spine, psoas, quadratus lumborum and the crura of the diaphragm; they lie over the lungs."""
    y = torso.spine_y
    parts = []
    for side in (-1, 1):
        erector = cylinder((y + 38, side * 28), (21, 28), power=2.6)
        psoas = ellipsoid((-120, y - 2, side * 38), (92, 17, 17))
        quadratus = ellipsoid((-110, y + 18, side * 62), (70, 9, 19), turn=rotation(roll=-side * 20))
        crus = ellipsoid((0, y - 24, side * 17), (95, 16, 5.5), turn=rotation(roll=side * 22))
        parts += [(s, "muscle") for s in (erector, psoas, quadratus, crus)]
    return parts


def lungs(torso: Torso) -> list[Part]:
    """The bases of the lungs: what lies in the cavity above the diaphragm, with vessels; then the heart above."""
    inside = torso.hull(torso.fat_side + 15.5, torso.fat_front + 12, 27.5 + 0.4 * torso.fat_side)
    mediastinum = smooth_union(
        [cylinder((torso.spine_y - 12, 2.0), (34, 27)), ellipsoid((122, -32, 20), (62, 46, 62))], 20
    )
    above = Shape(lambda z, y, x: -torso.diaphragm()(z, y, x))
    muscle = Shape(lambda z, y, x: -torso.diaphragm(2.0)(z, y, x)) & inside
    heart = ellipsoid((124, -34, 20), (55, 42, 56))
    parts = [(muscle - mediastinum, "muscle"), ((inside & above) - mediastinum, "lung")]
    return [*parts, (heart, "muscle"), (heart.grown(-9), "blood in the vena cava")]


def spine(torso: Torso) -> list[Part]:
    """Vertebrae (body, arch, processes) and discs; periodic in z, so that there are as many as the scan is long."""
    y0 = torso.spine_y

    def height(z: Array) -> Array:
        return np.mod(z - torso.disc_z + VERTEBRA_MM / 2, VERTEBRA_MM) - VERTEBRA_MM / 2  # 0 in the disc's middle

    def column(grow_mm: float) -> Shape:
        def function(z: Array, y: Array, x: Array) -> Array:
            waist = 1.5 * np.cos(height(z) * (2 * np.pi / VERTEBRA_MM))  # wider at the end plates
            v, u = (y - y0) / (16.5 + grow_mm + waist), x / (21.5 + grow_mm + waist)
            dent = 3.5 * np.exp(-np.square(x / 9)) * (y > y0)  # the back of a vertebral body is hollow
            return (np.sqrt(v * v + u * u) - 1) * 19 + dent

        return Shape(function, ((-np.inf, np.inf), (y0 - 20, y0 + 20), (-25, 25)))

    between = Shape(lambda z, y, x: np.abs(height(z)) - 4.0 + 0 * y * x)
    plates = Shape(lambda z, y, x: np.abs(height(z)) - 5.6 + 0 * y * x)
    canal_y = y0 + 25
    arch = [*_arch(y0, canal_y, height)]
    return [
        *((shape, "bone cortex") for shape in arch),
        *((shape.grown(-2.2), "bone marrow") for shape in arch),
        (column(0), "bone cortex"),
        (column(-2.0) - plates, "bone marrow"),
        (column(1.0) & between, "disc"),
        (cylinder((canal_y, 0.0), (9.0, 11.5)), "fat"),
        (cylinder((canal_y, 0.0), (7.5, 9.0)), "spinal canal"),
    ]


def _arch(y0: float, canal_y: float, height) -> list[Shape]:
    """Ring around the canal, spinous and transverse processes; all centered half-way between two discs."""

    def periodic(center_yx: tuple[float, float], radii: tuple[float, float, float], slope: float = 0.0) -> Shape:
        cy, cx = center_yx

        def function(z: Array, y: Array, x: Array) -> Array:
            h = height(z + VERTEBRA_MM / 2 + slope * (y - cy))
            total = np.square(h / radii[0]) + np.square((y - cy) / radii[1]) + np.square((x - cx) / radii[2])
            return (np.sqrt(total) - 1) * min(radii)

        reach = ((-np.inf, np.inf), (cy - radii[1], cy + radii[1]), (cx - radii[2], cx + radii[2]))
        return Shape(function, reach)

    ring = cylinder((canal_y, 0.0), (13.0, 15.5))
    lamina = Shape(lambda z, y, x: np.abs(height(z + VERTEBRA_MM / 2)) - 11.0 + 0 * y * x) & ring
    processes = [periodic((canal_y + 24, 0.0), (9.0, 20.0, 3.6), slope=0.45)]
    processes += [periodic((y0 + 24, side * 29.0), (6.0, 5.5, 19.0)) for side in (-1, 1)]
    processes += [periodic((canal_y + 7, side * 15.0), (14.0, 7.5, 6.5)) for side in (-1, 1)]
    return [lamina, *processes]


def ribs(torso: Torso) -> list[Part]:
    """Ribs: a shell in the wall cut into slanting bands; they end at the costal margin, which drops to the sides."""
    a = torso.half_width - torso.fat_side - 8.0
    front, back = -torso.half_depth + torso.fat_front + 6, torso.half_depth - 18 - 0.4 * torso.fat_side
    b, cy = (back - front) / 2, (back + front) / 2

    def function(z: Array, y: Array, x: Array) -> Array:
        v, u = (y - cy) / b, x / a
        radius = (np.abs(v) ** 2.5 + np.abs(u) ** 2.5) ** 0.4
        across = (radius - 1) * (b + (a - b) * u * u)
        forward = 0.5 * (1 - v)  # 0 at the back, 1 in front
        band = np.mod(z + 90 * forward + RIB_MM / 2 + np.sign(x) * 1.5, RIB_MM) - RIB_MM / 2
        rib = (np.sqrt(np.square(across / 3.6) + np.square(band / 6.0)) - 1) * 4.6
        margin = (forward - 0.64 - 0.0034 * (z - 10)) * 60  # above: ribs run further to the front
        gap = (0.16 - np.abs(u)) * a  # the neck of the rib at the spine
        return np.maximum(np.maximum(rib, margin), gap)

    rib = Shape(function, EVERYWHERE)
    xiphoid = ellipsoid((118, front + 4, 0.0), (26, 4, 11))
    return [(rib, "bone cortex"), (rib.grown(-1.8), "bone marrow"), (xiphoid, "bone cortex")]
