"""Tumors: where they lie, how large they are, and what is inside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_livseg.data.phantom.anatomy import Patient
from nnunet_livseg.data.phantom.fields import Grid, SmoothNoise, Vector
from nnunet_livseg.data.phantom.layers import Layer
from nnunet_livseg.data.phantom.shapes import Shape, ellipsoid, rotation
from nnunet_livseg.data.phantom.tissues import ARTERIAL_ONLY_CONTRAST_HU, TUMOR_TISSUES

CANDIDATE_STEP_MM = 6.0
GAP_MM = 6.0  # tumors keep at least this distance, so that each is one connected component
ROUGHNESS = {"cyst": 0.02, "FNH": 0.05, "hemangioma": 0.06, "HCC": 0.07, "metastasis": 0.08}  # of the radius


@dataclass(frozen=True)
class Tumor:
    """One tumor as it was planned; its measured size comes from the label map.

    Args:
        number: From 1, in one case.
        type: One of ``TUMOR_TYPES``.
        center_mm: Middle (z, y, x) before the patient's warp.
        radius_mm: Mean radius.
        arterial_only: Equal to the liver in the portal venous phase, bright in the arterial phase.
    """

    number: int
    type: str
    center_mm: Vector
    radius_mm: float
    arterial_only: bool


def place_tumors(
    patient: Patient,
    grid: Grid,
    rng: np.random.Generator,
    *,
    types: Sequence[str],
    diameter_mm: tuple[float, float],
    arterial_only: float,
) -> list[Tumor]:
    """Find room in the liver for one tumor of each entry of ``types``; large ones first.

    A tumor for which there is no room becomes smaller, down to the lower limit, and is then left out. Diameters are
    drawn evenly on a logarithmic scale: small tumors are the common ones.
    """
    low, high = (np.log(d / 2) for d in diameter_mm)
    radii = np.sort(np.exp(rng.uniform(low, high, len(types))))[::-1]
    hidden = rng.random(len(types)) < arterial_only
    points, depth = _room(patient, grid)
    order = rng.permutation(len(points))
    points, depth = points[order], depth[order]
    tumors: list[Tumor] = []
    for kind, radius, only in zip(types, radii, hidden, strict=True):
        while radius >= 0.99 * diameter_mm[0] / 2:
            chosen = _first_fit(points, depth, radius, tumors)
            if chosen is not None:
                center = tuple(float(v) for v in chosen)
                tumors.append(Tumor(len(tumors) + 1, kind, center, float(radius), bool(only)))
                break
            radius *= 0.85
    return tumors


def _room(patient: Patient, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) of a coarse lattice inside the liver and the scan, and their distance in mm to what bounds them."""
    axes = np.meshgrid(*(np.arange(low, high, CANDIDATE_STEP_MM) for low, high in patient.liver.bounds), indexing="ij")
    points = [axis.astype(np.float32) for axis in axes]
    depth = -patient.liver(*points)
    for neighbor in patient.neighbors:
        np.minimum(depth, neighbor(*points) + 2.0, out=depth)
    inside = depth > 0
    for axis, origin, spacing, size in zip(points, grid.origin_mm, grid.spacing_mm, grid.size, strict=True):
        end = origin + (size - 1) * spacing
        np.minimum(depth, np.minimum(axis - origin, end - axis), out=depth)
    inside &= depth > 0
    return np.stack([axis[inside] for axis in points], axis=1), depth[inside]


def _first_fit(points: np.ndarray, depth: np.ndarray, radius: float, tumors: list[Tumor]) -> np.ndarray | None:
    free = depth > 0.85 * radius + 1.0  # a little of a tumor may touch the capsule of the liver
    for tumor in tumors:
        distance = np.linalg.norm(points - np.asarray(tumor.center_mm, np.float32), axis=1)
        free &= distance > 1.25 * (radius + tumor.radius_mm) + GAP_MM
    chosen = np.flatnonzero(free)
    return points[chosen[0]] if chosen.size else None


def tumor_layers(tumor: Tumor, patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Body of the tumor and the parts inside it (scar, nodules, capsule, rim)."""
    radius = tumor.radius_mm
    radii = tuple(float(radius * s) for s in rng.uniform(0.88, 1.14, 3))
    turn = rotation(*(float(a) for a in rng.uniform(-60, 60, 3)))
    noise = SmoothNoise(rng, max(0.7 * radius, 3.0), nodes=12)
    body = ellipsoid(tumor.center_mm, radii, turn=turn).roughened(noise, ROUGHNESS[tumor.type] * radius)
    shifts = {name: float(rng.normal(0, 1)) * tissue.spread for name, tissue in TUMOR_TISSUES.items()}
    nodules = SmoothNoise(rng, max(0.55 * radius, 3.0), nodes=12)
    parts = {tumor.type: body, **_parts(tumor.type, body, radius, nodules)}
    return [_tumor_layer(tumor, name, shape, shifts[name], patient) for name, shape in parts.items()]


def _parts(kind: str, body: Shape, radius: float, noise: SmoothNoise) -> dict[str, Shape]:
    """Inner structures, from the body's implicit function (so they follow its outline)."""
    if kind == "FNH" and radius >= 9:
        scar = Shape(lambda *p: np.maximum(body.grown(-0.72 * radius)(*p), 3 * np.abs(noise.at(*p)) - 2.4), body.bounds)
        return {"FNH: scar": scar}
    if kind == "hemangioma":
        edge = body - body.grown(-0.36 * radius)
        nodules = Shape(lambda *p: np.maximum(edge(*p), 3 * noise.at(*p) - 0.2), body.bounds)
        return {"hemangioma: filled": body - body.grown(-0.6 * radius), "hemangioma: nodules": nodules}
    if kind == "HCC" and radius >= 7:
        return {"HCC: capsule": body - body.grown(-1.6)}
    if kind == "metastasis":
        return {"metastasis: rim": body - body.grown(-0.22 * radius)}
    return {}


def _tumor_layer(tumor: Tumor, name: str, shape: Shape, shift: float, patient: Patient) -> Layer:
    tissue = TUMOR_TISSUES[name]
    is_body = name == tumor.type
    hu: tuple[float | None, float | None] = (tissue.portal + shift, tissue.arterial + shift)
    if tumor.arterial_only:  # nothing of it in the portal venous phase, and no parts that would betray it there
        hu = (None, patient.hu["liver"][1] + ARTERIAL_ONLY_CONTRAST_HU if is_body else None)
    lesion = tumor.number if is_body else 0
    return Layer(shape, name, hu, texture=tissue.texture, role="tumor", lesion=lesion)
