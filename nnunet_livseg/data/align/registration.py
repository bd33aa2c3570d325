"""Register a phase to the primary phase, judge the result, and keep it only where it agrees better.

The region is the body, or, with a liver mask, the liver and 15 mm around it: breathing moves the liver against the
spine, and it is the liver that must fit. With the livers of both phases the deformable step also looks at their
boundaries.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.align.agreement import BODY_HU, WINDOW_HU, PhaseAgreement, dice, mutual_information
from nnunet_livseg.data.align.transforms import as_mask, coarse_grid, deformable, rigid, working
from nnunet_livseg.data.align.tumor_center import USES_GROUND_TRUTH, tumor_center_shift
from nnunet_livseg.imaging.grid import grid_differences, spelled
from nnunet_livseg.imaging.hounsfield import AIR_HU

TUMOR_CENTER = "tumor-center"
BY_LIVERS = "deformable-livers"
DEFORMABLE = ("deformable", BY_LIVERS)
METHODS = ("none", "rigid", *DEFORMABLE, TUMOR_CENTER)
_MARGIN_MM = 15.0
_SMALLEST_OVERLAP = 0.2
_SMALLEST_GAIN = 0.0  # nats of mutual information


@dataclass(frozen=True)
class Alignment:
    """A phase on the primary phase's grid.

    Args:
        image: The phase in HU on the grid of the primary phase; air where it does not reach.
        unaligned: The phase on that grid without registration.
        transform: Maps points of the primary phase to the phase (SimpleITK's direction for resampling).
        method: What was done in the end, one of ``METHODS``.
        region: Boolean ``(z, y, x)``, where it was judged.
        before: Agreement without registration.
        after: Agreement with it.
        mean_shift_mm: Mean length of the movement inside the region.
        notes: What the user should know.
    """

    image: sitk.Image
    unaligned: sitk.Image
    transform: sitk.Transform
    method: str
    region: np.ndarray
    before: PhaseAgreement
    after: PhaseAgreement
    mean_shift_mm: float
    notes: tuple[str, ...] = ()

    def numbers(self) -> dict:
        """Method and agreement, for a JSON record."""
        return {
            "method": self.method,
            "uses_ground_truth": self.method == TUMOR_CENTER,
            "mean_shift_mm": round(self.mean_shift_mm, 2),
            "before": self.before.rounded(),
            "after": self.after.rounded(),
        }


def align(
    primary: sitk.Image,
    other: sitk.Image,
    *,
    method: str = "rigid",
    mask: sitk.Image | None = None,
    other_mask: sitk.Image | None = None,
    labels: tuple[sitk.Image, sitk.Image] | None = None,
) -> Alignment:
    """Register ``other`` to ``primary``.

    Args:
        primary: The phase whose grid and labels count, in HU.
        other: Another phase of the same patient, in HU, on any grid.
        method: One of ``METHODS``.
        mask: Liver of the primary phase on its grid (any value above 0), e.g. a model's prediction.
        other_mask: Liver of the other phase on its grid. With ``mask`` it gives the Dice before and after, and guides
            ``deformable-livers``.
        labels: Reference labels of both phases, for ``tumor-center`` alone.

    Raises:
        UserError: Unknown method, a mask that is empty, on another grid or no label map, scans that do not overlap.
    """
    if method not in METHODS:
        raise UserError(f"method {method!r} is unknown; there are {', '.join(METHODS)}.")
    for given in (mask, other_mask):
        _require_labels(given)
    scans = _Scans.of(primary, other, _region(primary, mask))
    livers = _livers(mask, other_mask)
    if method == BY_LIVERS and livers is None:
        raise UserError(f"{BY_LIVERS} looks at the livers of both phases, and one is missing. Give both liver masks.")
    transforms = _transforms(scans, method, labels, livers)
    judged = {name: _judge(scans, transform, livers) for name, transform in transforms.items()}
    best, notes = (method, (USES_GROUND_TRUTH,)) if method == TUMOR_CENTER else _best(scans, judged, transforms)
    transform = transforms[best]
    return Alignment(
        resampled(other, primary, transform),
        resampled(other, primary, transforms["none"]),
        transform,
        best,
        scans.region,
        judged["none"],
        judged[best],
        float(np.linalg.norm(displacements_mm(transform, primary, scans.region), axis=1).mean()),
        notes,
    )


@dataclass(frozen=True)
class _Scans:
    """Both phases: as given, and (fixed, moving, where) as registration looks at them."""

    primary: sitk.Image
    other: sitk.Image
    region: np.ndarray
    fixed: sitk.Image
    moving: sitk.Image
    where: sitk.Image

    @classmethod
    def of(cls, primary: sitk.Image, other: sitk.Image, region: np.ndarray) -> "_Scans":
        fixed = working(primary)
        where = sitk.Resample(as_mask(region, primary), fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        return cls(primary, other, region, fixed, working(other), where)


def _require_labels(mask: sitk.Image | None) -> None:
    if mask is not None and (least := sitk.GetArrayViewFromImage(mask).min()) < 0:
        raise UserError(
            f"the liver mask contains values down to {least:g}, as a CT does, not a label map.\n"
            "  Give a map with 0 outside the liver and a value above 0 inside."
        )


def _livers(mask: sitk.Image | None, other_mask: sitk.Image | None) -> tuple[sitk.Image, sitk.Image] | None:
    if mask is None or other_mask is None:
        return None
    if not sitk.GetArrayViewFromImage(other_mask).any():
        raise UserError("the liver mask of the other phase is empty. Omit it, or give the right one.")
    return mask, other_mask


def _transforms(scans: _Scans, method: str, labels, livers) -> dict[str, sitk.Transform]:
    """The steps of a method, each from the result of the one before."""
    transforms = {"none": sitk.Transform(3, sitk.sitkIdentity)}
    if method == TUMOR_CENTER:
        if labels is None:
            raise UserError(
                "tumor-center alignment needs the reference labels of both phases.\n"
                "  Give them with --labels or in the table's columns, or use --method rigid."
            )
        transforms[method] = tumor_center_shift(*labels)
    elif method != "none":
        transforms["rigid"] = rigid(scans.fixed, scans.moving, scans.where, _start(scans))
    if method in DEFORMABLE:
        guides = livers if method == BY_LIVERS else None
        transforms[method] = deformable(scans.fixed, scans.moving, scans.where, transforms["rigid"], guides)
    return transforms


def displacements_mm(transform: sitk.Transform, grid: sitk.Image, region: np.ndarray, limit: int = 2000) -> np.ndarray:
    """Movement of up to ``limit`` points spread over ``region``, ``(n, 3)`` in x, y, z."""
    indices = np.argwhere(region)[:, ::-1]
    indices = indices[:: max(1, len(indices) // limit)].astype(float)
    points = [grid.TransformContinuousIndexToPhysicalPoint(index) for index in indices.tolist()]
    return np.array([transform.TransformPoint(point) for point in points]) - np.array(points)


def resampled(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """``image`` moved by ``transform`` onto ``grid``, linearly, air outside."""
    return sitk.Resample(image, grid, transform, sitk.sitkLinear, AIR_HU, image.GetPixelID())


def _region(primary: sitk.Image, mask: sitk.Image | None) -> np.ndarray:
    if mask is None:
        body = ndimage.binary_opening(sitk.GetArrayViewFromImage(primary) > BODY_HU, iterations=2)
        parts, count = ndimage.label(body)
        if not count:
            raise UserError(
                f"the primary phase shows no body: nothing is above {BODY_HU:g} HU.\n"
                "  Check that its values are Hounsfield units."
            )
        return parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    if mask.GetSize() != primary.GetSize():
        raise UserError(
            f"the liver mask has size {list(mask.GetSize())}, the primary phase {list(primary.GetSize())} (x, y, z).\n"
            "  The mask must be drawn on the primary phase."
        )
    if differences := grid_differences(mask, primary):
        raise UserError(
            "the liver mask does not lie where the primary phase lies, so its voxels are others than the phase's.\n"
            f"  {spelled(differences, 'mask', 'phase')}\n  Resample the mask to the primary phase's grid."
        )
    liver = sitk.GetArrayViewFromImage(mask) > 0
    if not liver.any():
        raise UserError("the liver mask is empty. Omit it, or give the right one.")
    distance_mm = ndimage.distance_transform_edt(~liver, sampling=primary.GetSpacing()[::-1])
    return distance_mm <= _MARGIN_MM


def _start(scans: _Scans) -> sitk.Euler3DTransform:
    """A rotation about the region's center; moved to the other scan's middle only where the scans hardly overlap."""
    start = sitk.Euler3DTransform()
    indices = np.argwhere(scans.region).mean(axis=0)[::-1].tolist()
    start.SetCenter(scans.primary.TransformContinuousIndexToPhysicalPoint(indices))
    if _covered(scans, start)[sitk.GetArrayViewFromImage(scans.where) > 0].mean() < _SMALLEST_OVERLAP:
        middles = [
            np.array(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
            for image in (scans.primary, scans.other)
        ]
        start.SetTranslation((middles[1] - middles[0]).tolist())
    return start


def _covered(scans: _Scans, transform: sitk.Transform) -> np.ndarray:
    """Where the moved scan has values, boolean ``(z, y, x)`` at working resolution."""
    ones = sitk.Image(scans.moving.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(scans.moving)
    moved = sitk.Resample(ones, scans.fixed, transform, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayViewFromImage(moved) > 0


def _judge(scans: _Scans, transform: sitk.Transform, livers: tuple[sitk.Image, sitk.Image] | None) -> PhaseAgreement:
    """Agreement at working resolution, where smoothing has made interpolated and original values comparable."""
    covered = _covered(scans, transform)
    moved = sitk.Resample(scans.moving, scans.fixed, transform, sitk.sitkLinear, WINDOW_HU[0])
    ours, theirs = sitk.GetArrayViewFromImage(scans.fixed), sitk.GetArrayViewFromImage(moved)
    seen = covered & (sitk.GetArrayViewFromImage(scans.where) > 0)
    overlap = None
    if livers:
        theirs_liver = sitk.Resample(livers[1] > 0, scans.primary, transform, sitk.sitkNearestNeighbor, 0)
        overlap = dice(sitk.GetArrayViewFromImage(livers[0]) > 0, sitk.GetArrayViewFromImage(theirs_liver) > 0)
    body = dice((ours > BODY_HU)[covered], (theirs > BODY_HU)[covered]) if covered.any() else 0.0
    return PhaseAgreement(mutual_information(ours[seen], theirs[seen]), body, overlap)


def _best(scans: _Scans, judged: dict[str, PhaseAgreement], transforms: dict) -> tuple[str, tuple[str, ...]]:
    """The furthest step that clearly agrees better than the one before it and does not fold space; with notes."""
    best, notes = "none", []
    for name in list(judged)[1:]:
        gain = judged[name].mutual_information - judged[best].mutual_information
        if gain <= _SMALLEST_GAIN:
            notes.append(f"{name} registration agreed no better than {best} ({gain:+.3f} nats) and was dropped")
        elif name in DEFORMABLE and (smallest := _smallest_jacobian(scans, transforms[name])) <= 0:
            notes.append(f"deformable registration folds space (Jacobian {smallest:.2f}) and was dropped")
        else:
            best = name
    return best, tuple(notes)


def _smallest_jacobian(scans: _Scans, transform: sitk.Transform) -> float:
    grid = coarse_grid(scans.primary, 8.0)
    geometry = grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, *geometry)
    determinant = sitk.DisplacementFieldJacobianDeterminant(field)
    inside = sitk.Resample(scans.where, determinant, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    values = sitk.GetArrayViewFromImage(determinant)[sitk.GetArrayViewFromImage(inside) > 0]
    return float(values.min()) if values.size else 1.0
