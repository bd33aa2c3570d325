"""A drawn dataset: bright boxes as livers, brighter ones as tumors, in an oblique patient."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk

SPACING_MM = (5.0, 2.0, 1.0)  # z y x
DIRECTION = [math.cos(0.3), -math.sin(0.3), 0, math.sin(0.3), math.cos(0.3), 0, 0, 0, 1]


def as_image(array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin((-10.0, 20.0, 300.0))
    image.SetDirection(DIRECTION)
    return image


def drawing(shift=0):
    """Labels: a liver of 4 x 10 x 20 voxels with a tumor of 2 x 3 x 4 in it."""
    labels = np.zeros((12, 24, 40), np.uint8)
    labels[4:8, 8 + shift : 18 + shift, 10:30] = 1
    labels[5:7, 10 + shift : 13 + shift, 14:18] = 2
    return labels


def ct_of(labels):
    """HU: air-like noise outside, 60 in the liver, 200 in tumors, and a bright spine outside the liver."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-120, -80, labels.shape).astype(np.int16)
    hu[:, 0:3, 30:] = 250
    hu[labels == 1], hu[labels == 2] = 60, 200
    return hu


@pytest.fixture
def drawn(tmp_path):
    """Folder of a raw dataset with two cases that have a liver and one that has none."""
    folder = tmp_path / "Dataset301_Drawn"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name, labels in (("a", drawing()), ("b", drawing(3)), ("none", np.zeros((12, 24, 40), np.uint8))):
        sitk.WriteImage(as_image(ct_of(labels)), str(folder / "imagesTr" / f"{name}_0000.nii.gz"))
        sitk.WriteImage(as_image(labels), str(folder / "labelsTr" / f"{name}.nii.gz"))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}}
    (folder / "dataset.json").write_text(json.dumps(content | {"numTraining": 3, "file_ending": ".nii.gz"}))
    return folder
