"""The organs around the liver: great vessels, kidneys, spleen, pancreas, stomach and bowel."""

import numpy as np

from nnunet_livseg.data.phantom.fields import SmoothNoise
from nnunet_livseg.data.phantom.shapes import Shape, ellipsoid, half_space, rotation, smooth_cut, smooth_union, tube
from nnunet_livseg.data.phantom.torso import Part, Torso


def kidneys(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Kidneys in their fat: cortex, pyramids and sinus."""
    parts = []
    for side, z, x in ((-1, -52, -58), (1, -36, 61)):
        center = (z + rng.uniform(-8, 8), torso.spine_y + 4 + rng.uniform(-2, 3), x + rng.uniform(-3, 3))
        turn = rotation(roll=side * -28, yaw=side * -12, pitch=8)
        size = rng.uniform(0.92, 1.08)
        kidney = ellipsoid(center, (55 * size, 29 * size, 25 * size), turn=turn)
        sinus_center = (center[0], center[1] - 9, center[2] - side * 17)
        sinus = ellipsoid(sinus_center, (25 * size, 13, 15), turn=turn)
        inner = kidney.grown(-7) - sinus.grown(3)
        columns = SmoothNoise(rng, 9.0, nodes=16)
        pyramids = Shape(lambda *p, i=inner, n=columns: np.maximum(i(*p), 4 * n.at(*p) - 2.5), inner.bounds)
        pelvis = ellipsoid(sinus_center, (9, 7, 9), turn=turn)
        fat = ellipsoid(center, (61 * size, 35 * size, 29 * size), turn=turn) & torso.cavity
        parts += [(fat, "fat"), (kidney, "kidney cortex"), (pyramids, "kidney medulla"), (sinus, "fat")]
        parts += [(pelvis, "bowel content")]
        start = (center[0] + 2, torso.spine_y - 27, side * 12)
        parts += [(s, "blood in the vena cava") for s in tube([start, sinus_center], 4.2)]
    return parts


def spleen(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Spleen: a crescent along the wall at the back left."""
    side = torso.half_width - torso.fat_side - 14
    size = rng.uniform(0.85, 1.15)
    center = (22 + rng.uniform(-6, 8), 30, side - 28)
    body = ellipsoid(center, (48 * size, 50 * size, 34 * size), turn=rotation(pitch=-18))
    hollow = ellipsoid((center[0] - 4, 8, center[2] - 36), (60, 44, 38))
    gap = torso.hull(torso.fat_side + 17.5, torso.fat_front + 14, 31 + 0.4 * torso.fat_side)
    below = torso.diaphragm(3.0)
    shape = smooth_cut(smooth_cut(smooth_cut(body, _outside(hollow), 8), gap, 6), below, 6)
    return [(shape, "spleen")]


def _outside(shape: Shape) -> Shape:
    return Shape(lambda *p: -shape(*p))


def great_vessels(torso: Torso) -> list[Part]:
    """Aorta with its first branches, vena cava, portal vein with its roots."""
    y = torso.spine_y - 29
    aorta = tube([(150, y + 4, 16), (60, y + 2, 13), (0, y, 10), (-150, y, 7)], [12, 11.5, 10.5, 9])
    celiac = tube([(6, y - 6, 9), (8, y - 24, 8)], 4.0)
    mesenteric = tube([(-8, y - 6, 8), (-16, y - 20, 6), (-130, y - 34, 2)], [4.2, 3.8, 3.2])
    splenic_artery = tube([(8, y - 24, 8), (14, y - 16, 40), (24, y + 4, 74)], 2.6)
    hepatic_artery = tube([(8, y - 24, 8), (8, y - 24, -18)], 2.4)
    cava_points = [(-150, y + 5, -17), (-40, y + 3, -18), (20, y - 3, -20), (56, y - 4, -20), (100, y - 18, -14)]
    cava = tube(cava_points, [10, 11, 11, 12, 12])
    confluence = (-10, y - 26, -8)
    portal = tube([confluence, (0, -8, -22), (6, -8, -28)], [7.0, 6.6, 6.0])
    roots = tube([(-140, y - 38, -10), confluence], [4.5, 6.0])
    roots += tube([confluence, (2, y - 20, 24), (20, y + 6, 78)], [5.0, 4.4, 3.8])
    arteries = [*aorta, *celiac, *mesenteric, *splenic_artery, *hepatic_artery]
    return [
        *((s, "blood in the vena cava") for s in cava),
        *((s, "blood in portal veins") for s in portal + roots),
        *((s, "blood in arteries") for s in arteries),
    ]


def pancreas(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Pancreas: head in the curve of the duodenum, tail at the spleen; lobulated."""
    y = torso.spine_y - 56
    points = [(-34, y + 6, -22), (-14, y, -18), (-2, y - 8, 4), (8, y + 2, 30), (18, y + 16, 58), (22, y + 28, 76)]
    shape = smooth_union(tube(points, [11, 13, 9.5, 9.5, 9, 7]), 6)
    return [(shape.roughened(SmoothNoise(rng, 7.0, nodes=32), 1.6), "pancreas")]


def stomach(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Stomach: fundus, body and antrum; fluid with a level and gas above it, as in a patient on the back."""
    front = -torso.half_depth + torso.fat_front + 10
    fill = rng.uniform(0.8, 1.08)
    fundus = ellipsoid((48, 14, 58), (34 * fill, 36 * fill, 34 * fill))
    body = ellipsoid((12, front + 46, 62), (46, 30 * fill, 30 * fill), turn=rotation(yaw=18))
    antrum = ellipsoid((-24, front + 34, 24), (17 * fill, 19 * fill, 38), turn=rotation(yaw=-14))
    inside = torso.hull(torso.fat_side + 22, torso.fat_front + 15, 40 + 0.4 * torso.fat_side)
    outer = smooth_cut(smooth_cut(smooth_union([fundus, body, antrum], 24), inside, 10), torso.diaphragm(6.0), 8)
    lumen = outer.grown(-5.0)
    level = half_space((0, 1, 0), front + rng.uniform(26, 44))
    return [(outer, "stomach wall"), (lumen, "stomach content"), (lumen & level, "gas")]


def mesentery(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Small vessels in the fat between the bowel loops: the strands that make fat in a CT look alive."""
    front = -torso.half_depth + torso.fat_front + 10
    parts = []
    for _ in range(46):
        start = np.array([rng.uniform(-135, -10), rng.uniform(front + 15, 15), rng.uniform(-70, 95)])
        end = start + rng.normal(0, 1, 3) * (14, 10, 14)
        parts += [(s, "blood in portal veins") for s in tube([tuple(start.tolist()), tuple(end.tolist())], [1.9, 1.2])]
    return parts


def bowel(torso: Torso, rng: np.random.Generator) -> list[Part]:
    """Colon along the flanks and across the front, small bowel between, duodenum around the head of the pancreas."""
    side = torso.half_width - torso.fat_side - 14
    front = -torso.half_depth + torso.fat_front + 10
    parts = []
    loops = int(rng.integers(26, 34))
    for _ in range(loops):  # small bowel
        center = (rng.uniform(-135, -38), rng.uniform(front + 18, 12), rng.uniform(-58, 84))
        radii = (rng.uniform(11, 16), rng.uniform(11, 16), rng.uniform(20, 34))
        turn = rotation(roll=rng.uniform(-70, 70), yaw=rng.uniform(-60, 60))
        loop = ellipsoid(center, radii, turn=turn)
        parts += [(loop.grown(2), "fat"), (loop, "bowel wall"), (loop.grown(-3), "bowel content")]
    duodenum = smooth_union(tube([(-12, -22, -44), (-38, -2, -46), (-62, 8, -22), (-64, 10, 14)], 10.0), 4)
    parts += [(duodenum, "bowel wall"), (duodenum.grown(-3), "bowel content")]
    right = tube([(-150, 10, -side + 24), (-72, 6, -side + 26), (-58, -22, -side + 40)], 19.0)
    across = tube([(-58, -22, -side + 40), (-62, front + 24, -40), (-56, front + 22, 20), (-30, front + 30, 70)], 17.0)
    left = tube([(-30, front + 30, 70), (4, 2, side - 24), (-40, 22, side - 20), (-150, 22, side - 20)], 15.0)
    parts += _colon(smooth_union(right + across, 6), rng) + _colon(smooth_union(left, 6), rng)
    return parts


def _colon(shape: Shape, rng: np.random.Generator) -> list[Part]:
    """Haustra by noise; faeces with gas above."""
    uneven = shape.roughened(SmoothNoise(rng, 13.0, nodes=32), 2.2)
    lumen = uneven.grown(-2.5)
    bubbles = SmoothNoise(rng, 9.0, nodes=48)
    gas = Shape(lambda *p: np.maximum(lumen(*p), 8 * (1.0 - bubbles.at(*p))), lumen.bounds)
    return [(uneven.grown(2), "fat"), (uneven, "bowel wall"), (lumen, "faeces"), (gas, "gas")]
