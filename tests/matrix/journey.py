"""The way of one cell: trained, continued, validated, predicted, exported, imported, predicted alike."""

from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.plans import plans_name

from .dataset import CASCADE, Dataset
from .nnunet import CommandFailed
from .support import FAILED, PASSED, REFUSED, Cell, Outcome

PREDICTED = {0, 1, 2}  # never the ignore label


def travel(cell: Cell, dataset: Dataset, out: Path) -> Outcome:
    """Run a cell on a dataset with its labels; a refusal counts as one only before anything is written."""
    journey = Journey(cell, dataset, out)
    started = monotonic()
    try:
        journey.run()
        ended, message = PASSED, ""
    except UserError as refusal:
        ended, message = (FAILED if journey.model.exists() else REFUSED), str(refusal)
    except (CommandFailed, AssertionError) as error:
        ended, message = FAILED, str(error).partition("\n")[0]
    message = message.replace(f"{dataset.place.folder}/", "")
    return Outcome(ended, cell.digest, round(monotonic() - started, 1), message)


class Journey:
    """One cell on its dataset.

    A cascade and its first stage train on all cases (fold ``all``), for the first stage has to predict each of them.
    """

    def __init__(self, cell: Cell, dataset: Dataset, out: Path) -> None:
        self.cell, self.dataset, self.out = cell, dataset, out
        self.fold = "all" if cell.configuration in CASCADE else 0
        plans = plans_name(cell.row, "default")
        self.model = dataset.place.results / dataset.name / f"{cell.row.trainer}__{plans}__{cell.configuration}"
        self.network = ("-tr", cell.row.trainer, "-p", plans)
        self.chosen = ("-d", dataset.name, "-c", cell.configuration, "-f", self.fold, *self.network)

    def run(self) -> None:
        """All steps.

        Raises:
            UserError, CommandFailed: As the commands.
            AssertionError: A command did not do what it should.
        """
        previous = ()
        if self.cell.configuration == CASCADE[1]:
            previous = ("-prev_stage_predictions", self.first_stage())
        self.train()
        here = self.predict("here", *previous)
        self.export_and_import(self.out / "results")
        imported = self.predict("imported", *previous, nnUNet_results=self.out / "results")
        assert np.array_equal(imported, here), "the imported model predicts otherwise"

    def first_stage(self) -> Path:
        """Folder with the low-resolution prediction of the unseen case; trains that stage if its cell did not."""
        stage = Journey(replace(self.cell, configuration=CASCADE[0]), self.dataset, self.out / CASCADE[0])
        if not (stage.model / "predicted_next_stage").is_dir():
            stage.train()
        stage.predict("here")
        return stage.out / "here"

    def train(self) -> None:
        """One epoch, continued to two; nnU-Net validates after both."""
        first = self.train_until(1)
        both = self.train_until(2, "--c")
        assert len(both) == 2 and both[:1] == first, f"epochs began at {first}, then at {both}: not continued"

    def train_until(self, epochs: int, *options: str) -> list[float]:
        """When each epoch so far began; a new training has other times, though not always other losses."""
        self.dataset.write_plans(self.cell.row, epochs=epochs)
        chosen = (self.dataset.name, self.cell.configuration, self.fold, *self.network)
        self.dataset.place.run("nnUNetv2_train", *chosen, "-device", "cpu", *options)
        fold = self.model / f"fold_{self.fold}"
        assert (fold / "validation" / "summary.json").is_file(), "not validated"
        return torch.load(fold / "checkpoint_final.pth", weights_only=False)["logging"]["epoch_start_timestamps"]

    def predict(self, name: str, *options: object, **environment: object) -> np.ndarray:
        """Probabilities (K, Z, Y, X) of the unseen case; the prediction is kept as ``name``."""
        folders = ("-i", self.dataset.images, "-o", self.out / name)
        command = ("nnUNetv2_predict", *folders, *self.chosen, "-device", "cpu", "--save_probabilities", *options)
        self.dataset.place.run(*command, **environment)
        labels = next((self.out / name).glob("*.nii.gz"), None)
        assert labels, "nothing was predicted"
        found = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(labels)))
        assert set(found.tolist()) <= PREDICTED, f"predicted labels are {found}"
        return np.load(next((self.out / name).glob("*.npz")))["probabilities"]

    def export_and_import(self, results: Path) -> None:
        """As to another computer: into another ``results`` folder."""
        archive = self.out / "model.zip"
        self.dataset.place.run("nnUNetv2_export_model_to_zip", "-o", archive, *self.chosen)
        results.mkdir(parents=True)
        self.dataset.place.run("nnUNetv2_install_pretrained_model_from_zip", archive, nnUNet_results=results)
