"""Tumor-centre alignment, as Zhang Yue et al. (SAM + URIM, MICCAI 2021, arXiv:2108.00911) prepared their phases.

It uses the ground truth of both phases and so cannot be applied to a patient who is to be segmented: it is there for
replication only.
"""

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR, TUMOR

USES_GROUND_TRUTH = "aligned by the tumors' centres in the reference labels: uses ground truth, for replication only"
_TUMOR = LIVER_AND_TUMOR[TUMOR]


def tumor_centre_shift(label: sitk.Image, other_label: sitk.Image) -> sitk.TranslationTransform:
    """The translation that brings the centres of all tumor voxels together; maps primary points to the other phase.

    Raises:
        UserError: No tumor in one of the labels.
    """
    centres = []
    for name, one in (("primary", label), ("other", other_label)):
        indices = np.argwhere(sitk.GetArrayViewFromImage(one) == _TUMOR)
        if not len(indices):
            raise UserError(
                f"the {name} phase's label holds no tumor (value {_TUMOR}), so there is no centre to align.\n"
                "  Use rigid registration for this case."
            )
        centres.append(np.array(one.TransformContinuousIndexToPhysicalPoint(indices.mean(axis=0)[::-1].tolist())))
    return sitk.TranslationTransform(3, (centres[1] - centres[0]).tolist())
