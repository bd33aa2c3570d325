"""One tiny dataset, preprocessed by nnU-Net, that the trainers of these tests read."""

import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_livseg.recipes import NNUNET
from nnunet_livseg.reference_networks import stock_configuration

DATASET = "Dataset901_Tiny"
LABELS = {"background": 0, "liver": 1, "tumor": 2}
INTENSITIES = {"mean": 90.0, "std": 40.0, "percentile_00_5": -20.0, "percentile_99_5": 200.0}
CASES = [f"case_{i}" for i in range(6)]
SPACING_MM = (4.0, 2.0, 2.0)


def plans(*, name="nnUNetPlans", channels=1, **recipe):
    """Stock plans in 2D and 3D with a short recipe that is nnU-Net's otherwise."""
    configurations = {}
    for key, dim in (("2d", 2), ("3d_fullres", 3)):
        patch = (8, 16, 16)[-dim:]
        configurations[key] = stock_configuration(dim, patch=patch, features=(4, 6, 8, 8)[: dim + 1]) | {
            "data_identifier": f"nnUNetPlans_{key}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_dice": False,
            "spacing": list(SPACING_MM)[-dim:],
            "normalization_schemes": ["CTNormalization"] * channels,
            "use_mask_for_norm": [False] * channels,
        }
        for what in ("data", "seg", "probabilities"):
            configurations[key][f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
            options = {"is_seg": what == "seg", "order": 1 if what == "seg" else 3, "order_z": 0}
            configurations[key][f"resampling_fn_{what}_kwargs"] = options | {"force_separate_z": None}
        short = NNUNET.replace(**{"epochs": 3, "iterations": 2, "validation_iterations": 1} | recipe)
        configurations[key]["livseg"] = {"recipe": short.to_dict(), "loss": "dice_ce"}
    return {
        "dataset_name": DATASET,
        "plans_name": name,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): dict(INTENSITIES) for i in range(channels)},
    }


def dataset_json(*, labels=LABELS, channels=1, **more):
    names = {str(i): "CT" for i in range(channels)}
    return {"labels": labels, "channel_names": names, "file_ending": ".nii.gz", "numTraining": len(CASES), **more}


def preprocess(folder, content, described, configuration, *, seed=0):
    """nnU-Net's preprocessing of random images with a liver and a tumor, as ``nnUNetv2_preprocess`` stores them."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(deepcopy(content))
    chosen = manager.get_configuration(configuration)
    out = folder / chosen.data_identifier
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for case in CASES:
        images = []
        for channel in range(len(described["channel_names"])):
            image = sitk.GetImageFromArray(random.normal(60, 150, (10, 24, 20)).astype(np.float32))
            image.SetSpacing(SPACING_MM[::-1])
            images.append(str(folder / f"{case}_{channel:04d}.nii.gz"))
            sitk.WriteImage(image, images[-1])
        label = np.zeros((10, 24, 20), np.uint8)
        label[2:8, 4:20, 4:16], label[4:6, 8:12, 8:12] = 1, 2
        reference = sitk.GetImageFromArray(label)
        reference.CopyInformation(image)
        sitk.WriteImage(reference, str(folder / f"{case}.nii.gz"))
        DefaultPreprocessor(verbose=False).run_case_save(
            str(out / case), images, str(folder / f"{case}.nii.gz"), manager, chosen, described
        )


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder of ``nnUNet_preprocessed`` with data of both configurations."""
    folder = tmp_path_factory.mktemp("tiny") / DATASET
    folder.mkdir()
    for configuration in ("2d", "3d_fullres"):
        preprocess(folder, plans(), dataset_json(), configuration)
    for file in folder.glob("*.nii.gz"):
        file.unlink()
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans()))
    (folder / "dataset.json").write_text(json.dumps(dataset_json()))
    (folder / "dataset_fingerprint.json").write_text("{}")
    return folder


@pytest.fixture
def place(tiny_data, tmp_path, monkeypatch):
    """nnU-Net's three folders with the tiny dataset; returns the dataset's preprocessed folder."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    shutil.copytree(tiny_data, tmp_path / "preprocessed" / DATASET)
    return tmp_path / "preprocessed" / DATASET


class RandomBatches:
    """In place of nnU-Net's loading processes: endless random batches as they would bring them."""

    def __init__(self, trainer, scales):
        self.size = (trainer.batch_size, 1, *trainer.configuration_manager.patch_size)
        self.scales, self.given = scales, 0

    def __next__(self):
        self.given += 1
        label = torch.randint(0, 3, self.size)
        target = label
        if self.scales is not None:
            target = [label[(..., *(slice(None, None, round(1 / s)) for s in scale))] for scale in self.scales]
        return {"data": torch.randn(self.size), "target": target, "keys": ["a", "b"]}


class WithRandomBatches:
    """Goes before a trainer: its batches are random and its progress is not drawn (a second per epoch)."""

    def get_dataloaders(self):
        self.logger.plot_progress_png = lambda folder: None
        scales = self._get_deep_supervision_scales()
        return RandomBatches(self, scales), RandomBatches(self, scales)


def make(trainer, content=None, *, described=None, resume=False, configuration="2d"):
    """A trainer, as nnUNetv2_train makes it (``resume``: with ``--c``)."""
    content = deepcopy(content or plans()) | {"continue_training": resume}
    return trainer(content, configuration, 0, described or dataset_json(), torch.device("cpu"))
