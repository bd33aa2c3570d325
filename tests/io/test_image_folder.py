"""What ``livseg predict`` asks of a folder of images before it loads a model and makes a folder."""

import json

import numpy as np
import pytest
from io_samples import as_image, ct_array, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.inference.image_folder import require_images, without_hidden_files

CT = ct_array()


@pytest.fixture
def dataset(tmp_path):
    content = {"channel_names": {"0": "CT", "1": "CT"}, "labels": {"background": 0}, "numTraining": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))
    return RawDataset.open(tmp_path)


def both(folder, **files):
    for name, array in ({"a_0000": CT, "a_0001": CT} | files).items():
        if array is not None:
            write(array, folder / f"{name.replace('__', '.')}.nii.gz")


WRONG = {
    "nothing": ({"a_0000": None, "a_0001": None}, "contains no image named CASE_0000.nii.gz"),
    "no channel number": ({"a_0000": None, "a_0001": None, "a": CT}, r"contains no image named .*it has a\.nii\.gz"),
    "one without": ({"b": CT}, r"contains b\.nii\.gz, which is not named as CASE_0000"),
    "a channel missing": ({"a_0001": None}, r"a_0001\.nii\.gz is missing, but the model needs 2 channels"),
    "no Hounsfield units": ({"a_0001": CT + 1024}, r"a_0001\.nii\.gz: .*intercept is probably lost"),
    "NaN": ({"a_0001": np.where(CT > 90, np.nan, CT).astype(np.float32)}, "voxels are NaN"),
    "another grid": ({"a_0001": as_image(CT, origin_mm=(0, 0, 0))}, r"a_0001\.nii\.gz is on another grid.*origin"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_folders_are_refused(name, dataset, tmp_path):
    files, message = WRONG[name]
    (tmp_path / "in").mkdir()
    both(tmp_path / "in", **files)
    with pytest.raises(UserError, match=f"(?s){message}"):
        require_images(tmp_path / "in", dataset)


def test_other_endings_and_damage(dataset, tmp_path):
    both(tmp_path / "in")
    require_images(tmp_path / "in", dataset)
    path = tmp_path / "in" / "a_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: it is damaged"):
        require_images(tmp_path / "in", dataset)
    write(CT, tmp_path / "nii" / "a_0000.nii")
    with pytest.raises(UserError, match=r"no image named CASE_0000\.nii\.gz \(it has a_0000\.nii\)"):
        require_images(tmp_path / "nii", dataset)


def test_hidden_files_are_passed_over(dataset, tmp_path):
    folder = tmp_path / "in"
    both(folder)
    with without_hidden_files(folder) as same:
        assert same == folder
    for name in ("._a_0000.nii.gz", ".DS_Store"):
        (folder / name).write_bytes(bytes(100))
    require_images(folder, dataset)
    with without_hidden_files(folder) as other:
        assert sorted(path.name for path in other.iterdir()) == ["a_0000.nii.gz", "a_0001.nii.gz"]
        assert (other / "a_0000.nii.gz").read_bytes() == (folder / "a_0000.nii.gz").read_bytes()
    assert not other.exists() and len(list(folder.iterdir())) == 4
