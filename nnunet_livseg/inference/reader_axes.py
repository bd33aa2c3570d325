"""Arrays turned to the axis order of the reader that a model was trained with, and back."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from nnunet_livseg.core.errors import UserError

# nnU-Net's readers of volumes: those that keep the stored axes, and those that turn them to right, front, up
_KEEPING = ("SimpleITKIO", "NibabelIO")
_TURNING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")


class ReaderAxes:
    """From an image's own axis order to that of one of nnU-Net's readers, and back.

    Args:
        image: The image.
        reader: Name of the reader in the model's plans.

    Raises:
        UserError: The reader is none of volumes.
    """

    def __init__(self, image: sitk.Image, reader: str) -> None:
        if reader not in _KEEPING + _TURNING:
            raise UserError(
                f"the model was trained on images that nnU-Net reads with {reader}: 2D pictures or TIFF without"
                "\n  Hounsfield units or voxel sizes. A model for CT is trained on NIfTI, NRRD or MetaImage volumes."
            )
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
        stored = io_orientation(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # ITK counts to left and back
        self._to_reader = stored if reader in _TURNING else None
        self._back = ornt_transform(axcodes2ornt("RAS"), stored) if reader in _TURNING else None
        spacing = np.array(image.GetSpacing())
        if self._to_reader is not None:
            turned = np.empty(3)
            turned[stored[:, 0].astype(int)] = spacing
            spacing = turned
        self.spacing_mm = tuple(spacing[::-1].tolist())

    def stacked(self, images: Sequence[sitk.Image]) -> np.ndarray:
        """Channels ``(C, Z, Y, X)`` in the reader's order; a view where there is one and it need not be turned."""
        channels = [self.to_reader(sitk.GetArrayViewFromImage(image)) for image in images]
        return channels[0][None] if len(channels) == 1 else np.stack(channels)

    def to_reader(self, array: np.ndarray) -> np.ndarray:
        """``(Z, Y, X)`` of the image to the reader's order."""
        return array if self._to_reader is None else apply_orientation(array.T, self._to_reader).T

    def from_reader(self, array: np.ndarray) -> np.ndarray:
        """The reader's order to ``(Z, Y, X)`` of the image."""
        return array if self._back is None else np.ascontiguousarray(apply_orientation(array.T, self._back).T)
