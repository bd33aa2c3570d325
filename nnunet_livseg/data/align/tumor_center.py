"""Tumor-center alignment, as Zhang Yue et al. (SAM + URIM, MICCAI 2021, arXiv:2108.00911) prepared their phases.

It uses the ground truth of both phases and so cannot be applied to a patient who is to be segmented: it is there for
replication only.
"""

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR, TUMOR

USES_GROUND_TRUTH = "aligned by the tumors' centers in the reference labels, which is for replication only"
_TUMOR = LIVER_AND_TUMOR[TUMOR]


def tumor_center_shift(label: sitk.Image, other_label: sitk.Image) -> sitk.TranslationTransform:
    """The translation that brings the centers of all tumor voxels together; maps primary points to the other phase.

    Raises:
        UserError: No tumor in one of the labels.
    """
    centers = []
    for name, one in (("primary", label), ("other", other_label)):
        indices = np.argwhere(sitk.GetArrayViewFromImage(one) == _TUMOR)
        if not len(indices):
            raise UserError(
                f"the {name} phase's label contains no tumor (value {_TUMOR}), so there is no center to align.\n"
                "  Use --method rigid for this case."
            )
        centers.append(np.array(one.TransformContinuousIndexToPhysicalPoint(indices.mean(axis=0)[::-1].tolist())))
    return sitk.TranslationTransform(3, (centers[1] - centers[0]).tolist())
