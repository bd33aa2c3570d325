"""The two registrations: rigid, and B-spline on top of it (SimpleITK).

Mattes mutual information, because contrast differs between phases by nature; values are windowed to soft tissue, so
that air, table and bone do not steer.

With the livers of both phases the B-spline sees each liver's boundary as a ramp of HU on top of the image: in a liver
without texture the boundary is nearly all that tells where it went. Few iterations and wide control distances keep the
spline from following what is wrong in predicted masks.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.align.agreement import WINDOW_HU, windowed
from nnunet_livseg.imaging.images import on_grid

_WORKING_MM = 2.0  # finest voxel that registration looks at
_SMOOTH = 0.75  # of a working voxel; without it interpolation, which averages noise, would look like agreement
_SAMPLES = 150_000
_SEED = 1
_RAMP_MM = 5.0  # to either side of a liver's boundary
_RAMP_HU_PER_MM = 30.0


@dataclass(frozen=True)
class _Spline:
    """How a B-spline is fitted: voxels of its levels, distance of control points, iterations per level."""

    levels_mm: tuple[float, ...]
    control_mm: float
    iterations: int


_BY_IMAGES = _Spline((8.0, 4.0), 40.0, 40)
_BY_LIVERS = _Spline((8.0,), 60.0, 10)


def as_mask(region: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """``region (z, y, x)`` as an image on ``grid``."""
    return on_grid(region.astype(np.uint8), grid)


def coarse_grid(image: sitk.Image, voxel_mm: float = _WORKING_MM) -> sitk.Image:
    """An empty grid over the image, with voxels of ``voxel_mm`` where the image's are finer."""
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    wanted = np.maximum(spacing, voxel_mm)
    grid = sitk.Image(np.ceil(size * spacing / wanted).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetSpacing(wanted.tolist())
    grid.SetOrigin(image.GetOrigin())
    grid.SetDirection(image.GetDirection())
    return grid


def working(image: sitk.Image) -> sitk.Image:
    """The image that registration compares: windowed to soft tissue, smoothed, at working resolution, float32."""
    grid = coarse_grid(image)
    smooth = sitk.SmoothingRecursiveGaussian(windowed(image), (_SMOOTH * np.array(grid.GetSpacing())).tolist())
    return sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, WINDOW_HU[0])


def with_boundary(image: sitk.Image, liver: sitk.Image) -> sitk.Image:
    """``image``, as ``working`` makes it, plus a ramp across the boundary of ``liver`` (above 0; not empty)."""
    distance_mm = sitk.SignedMaurerDistanceMap(liver > 0, squaredDistance=False, useImageSpacing=True)
    ramp_mm = sitk.Clamp(distance_mm, sitk.sitkFloat32, -_RAMP_MM, _RAMP_MM)
    return image + _RAMP_HU_PER_MM * sitk.Resample(ramp_mm, image, sitk.Transform(), sitk.sitkLinear, _RAMP_MM)


def _method(region: sitk.Image, levels: tuple[int, ...]) -> sitk.ImageRegistrationMethod:
    """What both registrations share: metric, region, samples, image pyramid."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricFixedMask(region)
    method.SetMetricSamplingStrategy(method.RANDOM)
    share = _SAMPLES / max(1, int(sitk.GetArrayViewFromImage(region).sum()))
    method.SetMetricSamplingPercentagePerLevel([min(1.0, share * level**3) for level in levels], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([0.5 * level * _WORKING_MM if level > 1 else 0 for level in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def rigid(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image, start: sitk.Euler3DTransform) -> sitk.Transform:
    """Rotation and translation from ``start``; images as ``working`` makes them, judged where ``region`` is 1."""
    method = _method(region, (4, 2, 1))
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 150, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    return _executed(method, fixed, moving)


def deformable(
    fixed: sitk.Image,
    moving: sitk.Image,
    region: sitk.Image,
    first: sitk.Transform,
    livers: tuple[sitk.Image, sitk.Image] | None = None,
) -> sitk.Transform:
    """A smooth cubic B-spline in front of the transform ``first``; otherwise as ``rigid``.

    ``livers`` of the fixed and the moving scan, where both are known, join the images (see ``with_boundary``).
    """
    spline = _BY_LIVERS if livers else _BY_IMAGES
    if livers:
        fixed, moving = (with_boundary(*pair) for pair in zip((fixed, moving), livers, strict=True))
    voxel_mm = max(fixed.GetSpacing())
    method = _method(region, tuple(max(1, round(mm / voxel_mm)) for mm in spline.levels_mm))
    extent_mm = np.array(fixed.GetSize()) * np.array(fixed.GetSpacing())
    mesh = np.maximum(1, np.rint(extent_mm / spline.control_mm)).astype(int).tolist()
    method.SetMovingInitialTransform(first)
    method.SetInitialTransform(sitk.BSplineTransformInitializer(fixed, mesh, 3), inPlace=True)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=spline.iterations)
    return sitk.CompositeTransform([first, _executed(method, fixed, moving)])


def _executed(method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    try:
        return method.Execute(fixed, moving)
    except RuntimeError as error:
        if "overlap" in str(error) or "valid points" in str(error):
            raise UserError(
                "the two phases overlap too little to be registered.\n"
                "  Check that both show the same patient and body part."
            ) from error
        raise
