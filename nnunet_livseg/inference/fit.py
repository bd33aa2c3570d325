"""Whether a CT is what a model was trained on, asked before any work is done."""

import numpy as np
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.hounsfield import require_hounsfield
from nnunet_livseg.inference.ct_input import Source
from nnunet_livseg.inference.trained_model import TrainedModel


def require_fit(source: Source, model: TrainedModel) -> None:
    """Refuse another number of channels than the model's, CTs without Hounsfield units, and values that are none.

    Raises:
        UserError: What does not fit.
    """
    channels = model.dataset.channels
    if len(source.images) != len(channels):
        raise UserError(
            f"{source.name} has {len(source.images)} channel(s), but {model.folder.name} was trained on"
            f" {len(channels)} ({', '.join(channels)}).\n  Give one image per channel, in this order."
        )
    for name, image in zip(channels, source.images, strict=True):
        values = sitk.GetArrayViewFromImage(image)
        if name.lower() == "ct":
            require_hounsfield(values, source.name, remedy="-1024 to its values")
        elif not np.isfinite(values).all():
            raise UserError(f"{source.name}: voxels of channel {name} are NaN or infinite. Replace them.")
