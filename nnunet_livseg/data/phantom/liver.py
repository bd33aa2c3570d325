"""The liver, its vessels and the gallbladder."""

from dataclasses import dataclass

import numpy as np

from nnunet_livseg.data.phantom.fields import Vector
from nnunet_livseg.data.phantom.shapes import (
    Shape,
    ellipsoid,
    half_space,
    rotation,
    smooth_cut,
    smooth_union,
    tube,
)
from nnunet_livseg.data.phantom.torso import Part, Torso

WALL_GAP_MM = 3.5  # diaphragm and fat between the liver and the wall


@dataclass(frozen=True)
class Liver:
    """Shape parameters of one liver.

    Args:
        width: Radius of the right lobe to the side, mm.
        depth: Radius front to back, mm.
        height: Radius along z, mm.
        left_reach: How far the left lobe crosses the midline, mm.
        left_height: Center of the left lobe, mm above the origin.
        visceral: Offset of the visceral surface, mm: larger means a bulkier liver.
        tilt: Steepness of the visceral surface.
    """

    width: float
    depth: float
    height: float
    left_reach: float
    left_height: float
    visceral: float
    tilt: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Liver":
        return cls(
            width=rng.uniform(70, 82),
            depth=rng.uniform(76, 88),
            height=rng.uniform(76, 94),
            left_reach=rng.uniform(38, 84),
            left_height=rng.uniform(26, 40),
            visceral=rng.uniform(-10, 8),
            tilt=rng.uniform(0.58, 0.82),
        )

    def shape(self, torso: Torso) -> Shape:
        """The liver with lobes, visceral surface and the impression of the wall, before its neighbors cut into it."""
        side = torso.half_width - torso.fat_side - 14
        front = -torso.half_depth + torso.fat_front + 10
        right = ellipsoid((2, -4, -side + self.width - 6), (self.height, self.depth, self.width), power=2.3)
        left_center = (self.left_height, front + 30, (self.left_reach - 60) / 2)
        left = ellipsoid(left_center, (36, 38, (self.left_reach + 60) / 2), turn=rotation(roll=-8, yaw=-6))
        caudate = ellipsoid((26, 4, -17), (24, 15, 17))
        visceral = half_space((-self.tilt, 0.28, 0.62), self.visceral)
        hilum = smooth_cut(right, half_space((-0.2, 0.55, 0.8), 12.0), 26)
        body = smooth_union([hilum, left, caudate], 22)
        inside = torso.hull(
            torso.fat_side + 14 + WALL_GAP_MM, torso.fat_front + 10 + WALL_GAP_MM, 32 + 0.4 * torso.fat_side
        )
        whole = smooth_cut(smooth_cut(body, visceral, 18), inside, 8)
        return smooth_cut(whole, torso.diaphragm(4.0), 6)


def fissures(torso: Torso) -> list[Part]:
    """Fat of the fissure of the round ligament and of the hilum, cut into the liver."""
    front = -torso.half_depth + torso.fat_front + 10
    ligament = ellipsoid((-2, front + 30, -6), (24, 17, 2.4), turn=rotation(roll=12, yaw=8))
    venosum = ellipsoid((24, -18, -4), (16, 15, 1.7), turn=rotation(roll=-52))
    hilum = ellipsoid((6, -10, -24), (11, 12, 17), turn=rotation(roll=-20))
    return [(ligament, "fat"), (venosum, "fat"), (hilum, "fat")]


def gallbladder(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Gallbladder with its wall under the visceral surface."""
    front = -torso.half_depth + torso.fat_front + 10
    center = (-36 + rng.uniform(-6, 4), front + 44 + rng.uniform(-5, 5), -30 + rng.uniform(-6, 6))
    size = rng.uniform(0.8, 1.15)
    bladder = ellipsoid(center, (17 * size, 27 * size, 13 * size), turn=rotation(pitch=35, roll=-20))
    return [(bladder, "bowel wall"), (bladder.grown(-1.3), "gallbladder")]


def hepatic_vessels(rng: np.random.Generator) -> list[Part]:
    """Trees of the portal vein (from the hilum) and of the three hepatic veins (to the vena cava)."""
    portal, hepatic = [], []
    hilum = (6.0, -8.0, -28.0)
    for first, count in (((14.0, 2.0, -58.0), 4), ((26.0, -40.0, -8.0), 3)):
        portal += tube([hilum, first], [5.5, 4.6])
        portal += _branches(rng, first, _direction(hilum, first), 4.4, count)
    cava = (58.0, 14.0, -20.0)
    for first in ((40.0, 26.0, -62.0), (44.0, -22.0, -48.0), (48.0, -34.0, 2.0)):
        hepatic += tube([cava, first], [5.0, 4.0])
        hepatic += _branches(rng, first, _direction(cava, first), 3.8, 3)
    parts = [(shape, "blood in hepatic veins") for shape in hepatic]
    return parts + [(shape, "blood in portal veins") for shape in portal]


def _direction(start: Vector, end: Vector) -> np.ndarray:
    step = np.subtract(end, start)
    return step / np.linalg.norm(step)


def _branches(
    rng: np.random.Generator, start: Vector, direction: np.ndarray, radius: float, generations: int
) -> list[Shape]:
    """A binary tree whose radii shrink by Murray's law (the cubes of the children sum up to the parent's)."""
    if generations == 0 or radius < 1.0:
        return []
    shapes = []
    for share in (0.62, 0.38):
        child = radius * share ** (1 / 3) * 0.92
        heading = direction + rng.normal(0, 0.45, 3)
        heading /= np.linalg.norm(heading)
        end = tuple(float(v) for v in np.asarray(start) + heading * rng.uniform(4.5, 8.0) * child**0.9)
        shapes += tube([start, end], [radius * 0.9 if share > 0.5 else child, child])
        shapes += _branches(rng, end, heading, child, generations - 1)
    return shapes
