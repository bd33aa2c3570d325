"""A small evaluated study, made once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.evaluation.folder import evaluate_folder

# dicom_samples, and io_samples that it builds on; pytest's importlib mode adds no path
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "io")]

LIVER = (slice(2, 10), slice(3, 21), slice(3, 25))
LESIONS = [(slice(3, 6), slice(5, 10), slice(5, 10)), (slice(6, 9), slice(12, 18), slice(12, 20))]


def scan(*lesions):
    labels = np.zeros((12, 24, 28), dtype=np.uint8)
    labels[LIVER] = 1
    for lesion in lesions:
        labels[lesion] = 2
    return labels


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Folders ``pred``, ``other``, ``labelsTr``, ``imagesTr``; the worst case has a name that must be escaped."""
    root = tmp_path_factory.mktemp("study")
    pairs = {
        "good": (LESIONS, LESIONS),
        "half": (LESIONS, LESIONS[:1]),
        "missed <&>": (LESIONS[:1], []),
        "none": ([], []),
    }
    for case, (reference, predicted) in pairs.items():
        ct = np.random.default_rng(0).integers(-100, 200, (12, 24, 28)).astype(np.int16)
        content = {
            "labelsTr": scan(*reference),
            "pred": scan(*predicted),
            "other": scan(*predicted[:1]),
            "imagesTr": ct,
        }
        for folder, array in content.items():
            (root / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.8, 0.8, 2.5))
            name = f"{case}_0000.nii.gz" if folder == "imagesTr" else f"{case}.nii.gz"
            sitk.WriteImage(image, str(root / folder / name))
    labels = {"labels": {"background": 0, "liver": 1, "tumor": 2}}
    for folder in ("pred", "other"):
        (root / folder / "dataset.json").write_text(json.dumps(labels))
    (root / "pred" / "extra.nii.gz").write_bytes((root / "pred" / "none.nii.gz").read_bytes())
    return root


@pytest.fixture(scope="session")
def result(study):
    return evaluate_folder(study / "pred", study / "labelsTr", out=study / "out", workers=1)
