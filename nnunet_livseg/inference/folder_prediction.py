"""A folder named as nnU-Net's through one ``Segmenter``: a label map per case, with the model's own values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_livseg.core.output_folder import require_folder
from nnunet_livseg.data.liver_crop_dataset import liver_in, predicted_livers, require_liver
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.imaging.images import on_grid, read_image, write_volume
from nnunet_livseg.inference.ct_input import CTInput, read_ct
from nnunet_livseg.inference.image_folder import require_images
from nnunet_livseg.inference.segmenter import Segmenter


class LiverFiles:
    """Livers that were segmented before, for ``Segmenter(liver_model=)``; the name of a CT selects its liver.

    Args:
        folder: Label maps ``CASE.ending``, whose labels are those of the ``dataset.json`` beside them.
        model: Folder of the model that will look at the livers; its labels are meant where there is none.

    Raises:
        UserError: There is no such folder, or no label is the liver.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.name, self.folder = folder.name, folder
        dataset = RawDataset.open(model)
        self.file_ending = dataset.file_ending
        self.structures = require_liver(predicted_livers(folder, dataset), where=str(folder))

    def find_liver(self, ct: CTInput, *, rough: bool = False) -> np.ndarray:
        """True on the liver and its tumors, ``(Z, Y, X)`` of the CT, rough or not.

        Raises:
            UserError: Its label map is missing, does not lie where the CT lies, or holds undeclared values.
        """
        path = self.folder / f"{ct.name}{self.file_ending}"
        trusted = not ct.notes  # of a repaired header nnU-Net passed on the unrepaired one
        return liver_in(path, read_image(path).image, self.structures, ct.image, trusted=trusted)

    def weights(self) -> list[Path]:
        """The label maps."""
        return sorted(self.folder.glob(f"*{self.file_ending}"))

    def settings(self) -> dict[str, str]:
        """Everything else that a result depends on."""
        return {"livers": str(self.folder)}


def predict_folder(images: Path, out: Path, segmenter: Segmenter) -> dict[str, list[str]]:
    """Segment every case of a folder into ``out``, each on its own grid, after a look at all of them.

    Args:
        images: Images ``CASE_0000.ending`` with the model's channels and ending, as for ``nnUNetv2_predict``.
        out: Folder for the label maps ``CASE.ending``.
        segmenter: The model, with a liver model or not.

    Returns:
        Notes on every case.

    Raises:
        UserError: A folder or file is missing, does not fit, or would be overwritten.
    """
    dataset = segmenter.model.dataset
    livers = segmenter.liver_model
    require_folder(out, inputs=[images, *([livers.folder] if isinstance(livers, LiverFiles) else [])])
    cases = require_images(images, dataset)
    out.mkdir(parents=True, exist_ok=True)
    notes = {}
    for name, paths in tqdm(cases.items(), desc="segment", unit="case", disable=not segmenter.progress):
        ct = replace(read_ct(tuple(paths)), name=name)
        labels, notes[name] = segmenter.label_map(ct)
        write_volume(on_grid(labels, ct.image), out / f"{name}{dataset.file_ending}")
    return notes
