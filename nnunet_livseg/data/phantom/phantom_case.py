"""One synthetic CT: a patient, sampled on a voxel grid, with noise."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_livseg.data.phantom.anatomy import make_patient
from nnunet_livseg.data.phantom.fields import Array, Grid, Vector
from nnunet_livseg.data.phantom.layers import Canvas, Layer
from nnunet_livseg.data.phantom.limits import check_options, default_spacing_mm
from nnunet_livseg.data.phantom.tissues import PHASES, TUMOR_TYPES
from nnunet_livseg.data.phantom.truth import TumorTruth, measure_tumors
from nnunet_livseg.data.phantom.tumors import Tumor, place_tumors, tumor_layers

SLAB_VOXELS = 3_000_000  # painted at a time; bounds the memory of large scans
TRUNK_MM = (200.0, 250.0, 345.0)  # (z, y, x) that a scan should cover; smaller ones are centered on the liver
LIVER_MM = (0.0, -12.0, -48.0)


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic CT.

    Args:
        image: HU, int16, (phases, Z, Y, X); phase 0 is portal venous, 1 arterial.
        label: 0 background, 1 liver, 2 tumor; uint8, (Z, Y, X).
        lesion: Number of the tumor (0: none), uint8, (Z, Y, X).
        tissue: Code of the tissue that fills most of the voxel: position in ``tissues.TISSUES``; tumors and partly
            filled voxels keep what lies below.
        grid: Voxel grid.
        tumors: Truth of every tumor, measured on ``lesion``.
    """

    image: Array
    label: Array
    lesion: Array
    tissue: Array
    grid: Grid
    tumors: list[TumorTruth]


def make_case(
    seed: int | Sequence[int],
    size: tuple[int, int, int] = (96, 192, 192),
    spacing_mm: Vector | None = None,
    phases: int = 1,
    *,
    tumors: tuple[int, int] = (2, 5),
    tumor_types: Sequence[str] = TUMOR_TYPES,
    tumor_diameter_mm: tuple[float, float] = (12.0, 50.0),
    arterial_only: float = 0.0,
    noise_hu: float = 11.0,
) -> PhantomCase:
    """Make one synthetic CT; the same arguments give the same voxels.

    Args:
        seed: Seed of everything random; several integers (study, case) are one seed.
        size: Voxels (Z, Y, X).
        spacing_mm: Voxel spacing (z, y, x); by default the scan covers the upper abdomen.
        phases: 1 (portal venous) or 2 (portal venous and arterial).
        tumors: Fewest and most tumors.
        tumor_types: Types to draw from; each is used once before one is used twice.
        tumor_diameter_mm: Smallest and largest diameter.
        arterial_only: Share of tumors that cannot be seen in the portal venous phase.
        noise_hu: Standard deviation of the image noise of a 5 mm slice in the middle of the body.

    Raises:
        UserError: An argument is out of range; the message says which and why.
    """
    spacing_mm = default_spacing_mm(size) if spacing_mm is None else spacing_mm
    check_options(size=size, spacing_mm=spacing_mm, phases=phases, tumors=tumors, tumor_types=tumor_types,
                  tumor_diameter_mm=tumor_diameter_mm, arterial_only=arterial_only, noise_hu=noise_hu)  # fmt: skip
    seeds = [seed] if isinstance(seed, int) else list(seed)
    grid = _grid(size, spacing_mm)
    rng = _generator(seeds, "patient")
    patient = make_patient(rng)
    rng = _generator(seeds, "tumors")
    types = _draw_types(rng, tumor_types, int(rng.integers(tumors[0], tumors[1] + 1)))
    planned = place_tumors(patient, grid, rng, types=types, diameter_mm=tumor_diameter_mm, arterial_only=arterial_only)
    layers = patient.layers + [layer for t in planned for layer in tumor_layers(t, patient, rng)]
    return _paint(seeds, grid, layers, patient.textures, phases, noise_hu, planned)


def _grid(size: tuple[int, int, int], spacing_mm: Vector) -> Grid:
    """Center a scan on the trunk, or, where it is too small for it, so that it covers the liver."""
    covered = [n * s for n, s in zip(size, spacing_mm, strict=True)]
    missing = [max(0.0, trunk - fov) / 2 for trunk, fov in zip(TRUNK_MM, covered, strict=True)]
    center = tuple(float(np.clip(c, -m, m)) for c, m in zip(LIVER_MM, missing, strict=True))
    return Grid(tuple(size), tuple(float(s) for s in spacing_mm), center)


def _generator(seeds: Sequence[int], *purpose: str | int) -> np.random.Generator:
    """An independent stream per purpose, so that a change of one does not change the others."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in purpose]
    return np.random.default_rng([*seeds, *words])


def _draw_types(rng: np.random.Generator, types: Sequence[str], count: int) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += [types[i] for i in rng.permutation(len(types))]
    return drawn[:count]


def _paint(
    seeds: Sequence[int],
    grid: Grid,
    layers: list[Layer],
    textures,
    phases: int,
    noise_hu: float,
    planned: list[Tumor],
) -> PhantomCase:
    image = np.empty((phases, *grid.size), np.int16)
    label, lesion, tissue = (np.zeros(grid.size, np.uint8) for _ in range(3))
    thickness = max(1, SLAB_VOXELS // (grid.size[1] * grid.size[2]))
    for start in range(0, grid.size[0], thickness):
        stop = min(start + thickness, grid.size[0])
        canvas = Canvas(grid, (start - 1, stop + 1), textures, phases)  # a slice more on each side, for gradients
        for layer in layers:
            canvas.paint(layer)
        inner = slice(1, -1)
        lesion[start:stop] = canvas.lesion[inner]
        tissue[start:stop] = canvas.tissue[inner]
        label[start:stop] = np.where(canvas.lesion > 0, 2, canvas.liver > 0.5)[inner]
        for phase in range(phases):
            for z in range(start, stop):
                rng = _generator(seeds, "noise", PHASES[phase], z)
                hu = canvas.hu[phase, z - start + 1]
                image[phase, z] = _to_stored(hu + _noise(rng, grid, noise_hu))
    truth = measure_tumors(planned, lesion, image, grid)
    return PhantomCase(image, label, lesion, tissue, grid, truth)


def _to_stored(hu: Array) -> Array:
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _noise(rng: np.random.Generator, grid: Grid, noise_hu: float) -> Array:
    """Noise of one slice: grainy as after filtered back-projection, stronger in the middle of the body."""
    spacing_z, *spacing_yx = grid.spacing_mm
    white = rng.standard_normal(grid.size[1:], dtype=np.float32)
    narrow, wide = [[w / s for s in spacing_yx] for w in (0.42, 2.4)]  # widths in mm -> voxels
    grain = ndimage.gaussian_filter(white, narrow, mode="wrap") - 0.6 * ndimage.gaussian_filter(
        white, wide, mode="wrap"
    )
    grain /= max(float(grain.std()), 1e-6)
    _, y, x = grid.axes(0, 1)
    shade = 0.75 + 0.4 * np.exp(-(np.square(y / 90) + np.square(x / 120)))[0]
    dose = np.clip(np.sqrt(5.0 / spacing_z), 0.7, 1.6)  # thin slices collect fewer photons
    return (noise_hu * float(dose) * shade * grain).astype(np.float32)
