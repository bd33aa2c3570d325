"""Multi-scale prediction with a trained SFAN, beside nnU-Net's own prediction."""

import pytest
import SimpleITK as sitk

DATASET = "Dataset901_Phantom"


@pytest.fixture(scope="module")
def trained(prepared):
    prepared.run("nnUNetv2_train", 901, "2d", 0, "-tr", "SFANTrainer", "-device", "cpu")
    return prepared


def arguments(place, out):
    images = place.raw / DATASET / "imagesTs"
    model = ("-d", 901, "-c", "2d", "-f", 0, "-tr", "SFANTrainer", "-device", "cpu")
    return ("-i", images, "-o", out, *model, "--save_probabilities", "-npp", 1, "-nps", 1)


def test_scale_one_is_nnunets_prediction_voxel_for_voxel(trained, tmp_path):
    trained.run("nnUNetv2_predict", *arguments(trained, tmp_path / "nnunet"))
    trained.run("livseg", "predict", "--scales", 1, *arguments(trained, tmp_path / "ours"))
    theirs, ours = (next((tmp_path / name).glob("*.nii.gz")) for name in ("nnunet", "ours"))
    assert theirs.name == ours.name
    assert theirs.read_bytes() == ours.read_bytes()


def test_three_scales_give_another_prediction_on_the_grid_of_the_image(trained, tmp_path):
    import numpy as np

    for name, scales in (("one", (1,)), ("three", (0.5, 1, 1.5))):
        trained.run("livseg", "predict", *arguments(trained, tmp_path / name), "--scales", *scales)
    image = sitk.ReadImage(next((trained.raw / DATASET / "imagesTs").glob("*_0000.nii.gz")))
    labels = sitk.ReadImage(next((tmp_path / "three").glob("*.nii.gz")))
    assert labels.GetSize() == image.GetSize()
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, geometry)() == pytest.approx(getattr(image, geometry)())
    one, three = (np.load(next((tmp_path / n).glob("*.npz")))["probabilities"] for n in ("one", "three"))
    assert three.shape == one.shape
    np.testing.assert_allclose(three.sum(0), 1, atol=1e-3)
    assert np.abs(three - one).max() > 1e-3
