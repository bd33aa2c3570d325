"""Which patches are forced to have foreground, and elastic deformation: in nnU-Net's own data loaders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.plans import KEY, Overrides, make_plans
from nnunet_livseg.recipes import Recipe
from nnunet_livseg.reference_networks import stock_configuration
from nnunet_livseg.trainers import TRAINERS, LivSegTrainer
from nnunet_livseg.training.augmentation import deform_elastically
from nnunet_livseg.variants import find_variant

DATASET = "Dataset901_Sampling"
DATASET_JSON = {"labels": {"background": 0, "liver": 1, "tumor": 2}, "channel_names": {"0": "CT"}}
DATASET_JSON |= {"file_ending": ".nii.gz", "numTraining": 2}
PATCH = (32, 48)
ELASTIC = {"probability": 1.0, "scale": [0.1, 0.2], "magnitude": [0.25, 0.5]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """nnU-Net's folders with two preprocessed cases, one for training and one for validation."""
    folder = tmp_path_factory.mktemp("sampling")
    data = folder / "preprocessed" / DATASET / "x"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        image = rng.normal(size=(1, 3, 40, 56)).astype(np.float32)
        labels = (image > 1).astype(np.int16)
        properties = {"class_locations": {1: np.argwhere(labels == 1), 2: np.zeros((0, 4), int)}}
        layout = {f"{kind}{of}": image.shape for kind in ("chunks", "blocks") for of in ("", "_seg")}
        nnUNetDatasetBlosc2.save_case(image, labels, properties, str(data / case), **layout)
    (data.parent / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    return folder


@pytest.fixture
def make_trainer(folders, monkeypatch):
    """A trainer on those cases, ready for its data loaders."""
    for name in ("raw", "preprocessed", "results"):
        (folders / name).mkdir(exist_ok=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(folders / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def make(trainer=TRAINERS["DPCNetTrainer"], **recipe):
        configuration = stock_configuration(2, patch=PATCH, features=(4, 6, 8)) | {"data_identifier": "x"}
        configuration |= {"batch_size": 2, "batch_dice": False, "preprocessor_name": "DefaultPreprocessor"}
        configuration |= {"use_mask_for_norm": [False], KEY: {"recipe": recipe}}
        plans = {"dataset_name": DATASET, "plans_name": "P", "label_manager": "LabelManager"}
        plans |= {"configurations": {"2d": configuration}, "continue_training": False}
        made = trainer(plans, "2d", 0, DATASET_JSON, torch.device("cpu"))
        made.network = made.build_network_architecture(made.plans_manager, made.configuration_manager, 1, 3)
        made._set_batch_size_and_oversample()
        return made

    return make


def forced(loader, batches=600):
    """Share of the patches that the loader forces to contain foreground."""
    np.random.seed(0)  # noqa: NPY002 - nnU-Net draws from it
    return np.mean([loader.get_do_oversample(i) for _ in range(batches) for i in range(loader.batch_size)])


# --- foreground -------------------------------------------------------------------------------------------------------


def test_a_third_is_a_third(make_trainer):
    """nnU-Net rounds a third of two patches to one; by chance, a third it is, in training and validation."""
    for loaders, share, tolerance in (
        (make_trainer(foreground=1 / 3).get_dataloaders(), 1 / 2, 0),
        (make_trainer(foreground=1 / 3, probabilistic_oversampling=True).get_dataloaders(), 1 / 3, 0.04),
    ):
        for loader in loaders:
            assert forced(loader.data_loader) == pytest.approx(share, abs=tolerance)


def test_every_process_of_several_has_the_same_share(make_trainer, tmp_path):
    """nnU-Net turns the rounded share of the whole batch into one per process, which is right only without chance."""
    shares = []
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for by_chance in (False, True):
            trainer = make_trainer(foreground=0.3, probabilistic_oversampling=by_chance)
            trainer.is_ddp = True
            trainer._set_batch_size_and_oversample()
            shares.append(trainer.oversample_foreground_percent)
    finally:
        torch.distributed.destroy_process_group()
    assert shares == [0.5, 0.3]


# --- elastic deformation ----------------------------------------------------------------------------------------------


def spatial(loader):
    (found,) = [t for t in loader.data_loader.transforms.transforms if isinstance(t, SpatialTransform)]
    return found


def test_images_and_labels_of_the_training_are_deformed(make_trainer):
    loaders = make_trainer(elastic=ELASTIC).get_dataloaders()
    transform = spatial(loaders[0])
    assert not [t for t in loaders[1].data_loader.transforms.transforms if isinstance(t, SpatialTransform)]
    transform.p_rotation = transform.p_scaling = 0
    y, x = np.meshgrid(*(np.arange(size) for size in PATCH), indexing="ij")
    ramps = torch.tensor(np.stack([y, x]), dtype=torch.float32)  # says where each pixel came from
    labels = torch.tensor((x > 20).astype(np.int16))[None]
    for _ in range(5):
        moved = transform(image=ramps, segmentation=labels)
        inside = (slice(None), slice(8, -8), slice(8, -8))
        shift = (moved["image"] - ramps)[inside]
        farthest = shift.abs().amax((1, 2)).numpy()
        assert (farthest > 0.2).all() and (
            farthest <= 2 * 0.5 * 0.2 * np.array(PATCH)
        ).all()  # and the field is centerd
        np.testing.assert_array_equal(moved["segmentation"][inside], (moved["image"][1:] > 20.5)[inside])
        steps = shift[0].diff(dim=0)
        assert steps.abs().max() < 1, "the image must not fold"


def test_without_the_entry_nothing_is_deformed(make_trainer):
    assert spatial(make_trainer().get_dataloaders()[0]).p_elastic_deform == 0


def test_thick_slices_are_deformed_in_plane():
    """nnU-Net's dummy 2D augmentation of anisotropic patches."""
    transforms = nnUNetTrainer.get_training_transforms((8, *PATCH), (-0.1, 0.1), [[1, 1, 1]], (0, 1, 2), True)
    assert deform_elastically(transforms, ELASTIC) == 1
    image = torch.rand(1, 8, *PATCH, generator=torch.Generator().manual_seed(0))
    done = transforms(image=image, segmentation=(image > 0.5).to(torch.int16))
    assert done["image"].shape == image.shape and done["image"].isfinite().all()


class NoAugmentation(TRAINERS["DPCNetTrainer"]):
    """As nnU-Net's nnUNetTrainerNoDA."""

    @staticmethod
    def get_training_transforms(*args, deep_supervision_scales=None, **kwargs):
        return nnUNetTrainer.get_validation_transforms(args[2])


def test_a_subclass_without_spatial_transforms_is_told(make_trainer):
    trainer = make_trainer(NoAugmentation, elastic=ELASTIC)
    trainer.get_dataloaders()
    assert "elastic deformation is not used" in Path(trainer.log_file).read_text()


def test_the_method_is_still_nnunets():
    assert LivSegTrainer.get_training_transforms is nnUNetTrainer.get_training_transforms


# --- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elastic", "message"),
    [
        ({"probability": 0.2}, "elastic is .* but must have the entries probability and scale and magnitude"),
        (ELASTIC | {"probability": 2}, "'probability' must be from 0 to 1"),
        (ELASTIC | {"scale": 0.2}, "'magnitude' must be two numbers each"),
        (ELASTIC | {"magnitude": [0.5, 0.1]}, "the smaller one first"),
    ],
)
def test_bad_elastic_entries_are_refused(elastic, message):
    with pytest.raises(UserError, match=message):
        Recipe().with_entries({"elastic": elastic})


@pytest.mark.parametrize(
    ("name", "preset"), [("dpcnet", "paper"), ("dpcnet", "table4"), ("dpcnet-ce", "paper"), ("dpcnet-daf", "table4")]
)
def test_presets_of_dpcnet_sample_and_deform_as_the_paper_says(name, preset):
    stock = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": stock_configuration(3)}}
    stock["configurations"]["3d_fullres"] |= {"median_image_size_in_voxels": [100, 200, 200], "data_identifier": "x"}
    plans = make_plans(stock, find_variant(name), preset=preset, name="T", overrides=Overrides(epochs=3))
    recipe = Recipe().with_entries(json.loads(json.dumps(plans))["configurations"]["3d_fullres"][KEY]["recipe"])
    assert (recipe.foreground, recipe.probabilistic_oversampling, recipe.epochs) == (1 / 3, True, 3)
    assert recipe.elastic["probability"] > 0
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("adam", 1e-4, "constant")
