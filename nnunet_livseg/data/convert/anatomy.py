"""Does the header agree with the patient? The liver lies on the right, the spine at the back.

LiTS holds volumes whose header mirrors the patient. A network trained on arrays does not notice, but a report that says
"right lobe" or a DICOM result laid over the original series would be wrong, so the conversion says so.
"""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

_BODY_HU = -200
_BONE_HU = 300
_STEP = 4  # every fourth voxel in plane is enough for centres of mass
_CLEAR_MM = 10.0


def orientation_code(image: sitk.Image) -> str:
    """Where the x, y and z axis of the array point to, e.g. ``LPS``."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def doubts(image: sitk.Image, liver: np.ndarray) -> list[str]:
    """Contradictions between header and anatomy (empty: none).

    Args:
        image: CT.
        liver: Boolean ``(z, y, x)``, True on liver and tumor.
    """
    body = _largest(sitk.GetArrayViewFromImage(image)[:, ::_STEP, ::_STEP] > _BODY_HU)
    bone = (sitk.GetArrayViewFromImage(image)[:, ::_STEP, ::_STEP] > _BONE_HU) & body
    slices = liver.any(axis=(1, 2))
    if not slices.any() or not body[slices].any():
        return []
    body[~slices] = bone[~slices] = False  # compare at the liver's height
    middle = _centre_mm(image, body)
    found = []
    to_left_mm = (_centre_mm(image, liver[:, ::_STEP, ::_STEP]) - middle)[0] if liver[:, ::_STEP, ::_STEP].any() else 0
    if to_left_mm > _CLEAR_MM:
        found.append(
            f"by the header the liver lies {to_left_mm:.0f} mm left of the body's middle: left and right are mirrored"
        )
    to_back_mm = (_centre_mm(image, bone) - middle)[1] if bone.any() else 0
    if to_back_mm < -_CLEAR_MM:
        found.append(
            f"by the header the spine lies {-to_back_mm:.0f} mm in front of the body's middle:"
            " front and back are mirrored"
        )
    return found


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    return parts == np.argmax(np.bincount(parts.flat)[1:]) + 1


def _centre_mm(image: sitk.Image, mask: np.ndarray) -> np.ndarray:
    """Centre of mass of a ``(z, y, x)`` mask thinned by ``_STEP`` in plane, as physical x, y, z."""
    z, y, x = (float(axis.mean()) for axis in np.nonzero(mask))
    return np.array(image.TransformContinuousIndexToPhysicalPoint((x * _STEP, y * _STEP, z)))
