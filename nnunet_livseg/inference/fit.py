"""Whether a CT is what a model was trained on, asked before any work is done."""

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.hounsfield import require_hounsfield
from nnunet_livseg.inference.ct_input import Source
from nnunet_livseg.inference.trained_model import TrainedModel


def require_fit(source: Source, model: TrainedModel) -> tuple[str, ...]:
    """Refuse another number of channels than the model's and values that are no Hounsfield units; returns remarks.

    Raises:
        UserError: What does not fit.
    """
    channels = model.dataset.channels
    if len(source.images) != len(channels):
        raise UserError(
            f"{source.name} has {len(source.images)} channel(s), but {model.folder.name} was trained on"
            f" {len(channels)} ({', '.join(channels)}).\n  Give one image per channel, in this order."
        )
    remarks: dict[str, None] = {}
    for name, image in zip(channels, source.images, strict=True):
        values = sitk.GetArrayViewFromImage(image)
        if name.lower() == "ct":
            remedy = "-1024 to its values" if source.series is None else "--intercept -1024"
            remarks |= dict.fromkeys(require_hounsfield(values, source.name, remedy=remedy))
        elif not np.isfinite(values).all():
            raise UserError(f"{source.name}: voxels of channel {name} are NaN or infinite. Replace them.")
    return tuple(remarks)
