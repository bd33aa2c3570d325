"""Multi-scale prediction with a trained SFAN, beside nnU-Net's own prediction."""

import pytest
import SimpleITK as sitk

DATASET = "Dataset901_Phantom"


def arguments(place, out):
    images = place.raw / DATASET / "imagesTs"
    model = ("-d", 901, "-c", "2d", "-f", 0, "-tr", "SFANTrainer", "-device", "cpu")
    return ("-i", images, "-o", out, *model, "--save_probabilities", "-npp", 0, "-nps", 0)


def test_scale_one_is_nnunets_prediction_voxel_for_voxel(sfan, tmp_path):
    sfan.quick("nnUNetv2_predict", *arguments(sfan, tmp_path / "nnunet"))
    sfan.quick("livseg", "predict", "--scales", 1, *arguments(sfan, tmp_path / "ours"))
    theirs, ours = (next((tmp_path / name).glob("*.nii.gz")) for name in ("nnunet", "ours"))
    assert theirs.name == ours.name
    assert theirs.read_bytes() == ours.read_bytes()


def test_three_scales_give_another_prediction_on_the_grid_of_the_image(sfan, tmp_path):
    import numpy as np

    for name, scales in (("one", (1,)), ("three", (0.5, 1, 1.5))):
        sfan.quick("livseg", "predict", *arguments(sfan, tmp_path / name), "--scales", *scales)
    image = sitk.ReadImage(next((sfan.raw / DATASET / "imagesTs").glob("*_0000.nii.gz")))
    labels = sitk.ReadImage(next((tmp_path / "three").glob("*.nii.gz")))
    assert labels.GetSize() == image.GetSize()
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, geometry)() == pytest.approx(getattr(image, geometry)())
    one, three = (np.load(next((tmp_path / n).glob("*.npz")))["probabilities"] for n in ("one", "three"))
    assert three.shape == one.shape
    np.testing.assert_allclose(three.sum(0), 1, atol=1e-3)
    assert np.abs(three - one).max() > 1e-3
