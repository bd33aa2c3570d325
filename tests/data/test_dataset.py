"""Raw datasets are found by folder, name and id, and read as nnU-Net reads them."""

import json

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import dataset_id, suggest_dataset_name
from nnunet_livseg.core.nnunet_folders import find_dataset
from nnunet_livseg.data.convert.dataset_files import dataset_folder
from nnunet_livseg.data.raw_dataset import RawDataset, find_raw_dataset

VALID = {
    "channel_names": {"0": "CT", "1": "CT"},
    "labels": {"background": 0, "liver": [1, 2], "Liver Tumour": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """nnUNet_raw with Dataset003_Liver, Dataset017_Ircad and two datasets of id 5."""
    for name in ("Dataset003_Liver", "Dataset017_Ircad", "Dataset005_A", "Dataset005_B", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(json.dumps(VALID))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("given", ["3", "003", 3, "Dataset003_Liver"])
def test_found_by_id_and_name(raw, given):
    assert find_raw_dataset(given).folder == raw / "Dataset003_Liver"
    assert find_raw_dataset(given).id == 3


@pytest.mark.parametrize(
    "name",
    ["Dataset1011_Big", "Dataset012_My Liver", "Dataset013_Süd (v2)", "Dataset014", "Dataset15_Short", "dataset016_x"],
)
def test_names_are_those_that_nnunet_takes(name, monkeypatch, tmp_path):
    """nnU-Net is the judge: what it finds by an id we find by the same id, and nothing else."""
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / name).mkdir()
    for number in (1011, 101, 10, 11, 12, 13, 14, 15, 16):
        try:
            theirs = convert_id_to_dataset_name(number)
        except RuntimeError:
            with pytest.raises(UserError, match=f"there is no dataset {number}"):
                find_dataset(str(number), "nnUNet_raw")
        else:
            assert find_dataset(str(number), "nnUNet_raw").name == theirs
            assert dataset_id(name) in (number, 1011)


def test_two_names_of_which_one_begins_as_the_other(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    for name in ("Dataset101_A", "Dataset1011_B"):
        (tmp_path / name).mkdir()
    assert find_dataset("1011", "nnUNet_raw").name == "Dataset1011_B"
    assert find_dataset("Dataset101_A", "nnUNet_raw").name == "Dataset101_A"
    with pytest.raises(UserError, match="with the same id 101 for nnU-Net, which compares how names begin"):
        find_dataset("101", "nnUNet_raw")


@pytest.mark.parametrize(("wrong", "number"), [("7", "7"), ("Dataset007_X", "7"), ("raw/Dataset007_X", "NUMBER")])
def test_the_remedy_has_a_number_as_nnunet_takes_no_names(monkeypatch, tmp_path, wrong, number):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    with pytest.raises(UserError, match=f"plan_and_preprocess -d {number} first"):
        find_dataset(wrong)


def test_a_new_dataset_gets_any_number_that_nnunet_would_find_alone(tmp_path):
    (tmp_path / "Dataset1011_B").mkdir()
    assert dataset_folder(tmp_path, 1012, "New").name == "Dataset1012_New"
    assert dataset_folder(tmp_path, 1011, "B").name == "Dataset1011_B"
    for number in (101, 1011):  # nnU-Net looks at how a name begins
        with pytest.raises(UserError, match=f"--id {number} is taken by .*Dataset1011_B"):
            dataset_folder(tmp_path, number, "New")
    with pytest.raises(UserError, match="--id 0: nnU-Net's dataset numbers begin at 1"):
        dataset_folder(tmp_path, 0, "New")


def test_found_by_folder_without_nnunet_raw(raw, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    assert find_raw_dataset(raw / "Dataset017_Ircad").id == 17
    monkeypatch.chdir(raw)
    assert find_raw_dataset("Dataset017_Ircad").name == "Dataset017_Ircad"
    assert find_raw_dataset("notes").id is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Dataset017_Ircadb", "there is no dataset Dataset017_Ircadb in .* Did you mean Dataset017_Ircad?"),
        ("18", "no dataset 18 in .*\n  Datasets there: Dataset003_Liver, Dataset005_A"),
        ("5", "contains Dataset005_A and Dataset005_B, with the same id 5"),
        ("no/such/folder", "there is no folder no/such/folder"),
    ],
)
def test_what_is_not_found_is_named(raw, given, message):
    with pytest.raises(UserError, match=message):
        find_raw_dataset(given)


def test_without_nnunet_raw_the_message_says_how_to_set_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        find_raw_dataset("3")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="absent, which is not a folder"):
        find_raw_dataset("3")


def test_cases_channels_and_labels(raw):
    folder = raw / "Dataset003_Liver"
    (folder / "imagesTr").mkdir()
    for name in ("b_1_0000", "b_1_0001", "a_0001", "notes"):
        (folder / "imagesTr" / f"{name}.nii.gz").write_bytes(b"")
    (folder / "imagesTr" / "c_0000.nrrd").write_bytes(b"")
    dataset = RawDataset.open(folder)
    assert [case.name for case in dataset.cases()] == ["a", "b_1"]
    assert [path.name for path in dataset.cases()[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.cases()[0].label == folder / "labelsTr" / "a.nii.gz"
    assert dataset.channels == ["CT", "CT"] and dataset.structures.ignore == 3
    assert dataset.structures.values == {"liver": (1, 2), "tumor": (2,)}


def test_cases_that_the_json_lists_elsewhere(raw, monkeypatch):
    monkeypatch.setenv("SCANS", "/scans")
    listed = {"x": {"images": ["$SCANS/x.nii.gz", "other/x.nii.gz"], "label": "x_seg.nii.gz"}}
    folder = raw / "Dataset003_Liver"
    (folder / "dataset.json").write_text(json.dumps({**VALID, "dataset": listed}))
    (case,) = RawDataset.open(folder).cases()
    assert [str(path) for path in case.images] == ["/scans/x.nii.gz", str(folder / "other/x.nii.gz")]
    assert case.label == folder / "x_seg.nii.gz"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no dataset.json"),
        ("{", "dataset.json is not valid JSON: Expecting property name"),
        ("[]", "contains a list and not an object"),
        (json.dumps({k: v for k, v in VALID.items() if k != "labels"}), "lacks labels, which nnU-Net needs"),
        (json.dumps({"modality": {"0": "CT"}, "labels": {}}), r"channel_names and numTraining.*v1 called it .modality"),
        (json.dumps({**VALID, "numTraining": "8"}), 'numTraining in dataset.json is "8", which is not of type int'),
        (
            json.dumps({**VALID, "labels": ["liver"]}),
            r'labels in dataset.json is \["liver"\], which is not a filled object',
        ),
        (json.dumps({**VALID, "channel_names": {}}), "channel_names in dataset.json is {}, which is not a filled"),
        (json.dumps({**VALID, "channel_names": {"CT": 0}}), "channel_names in dataset.json has the keys CT"),
    ],
)
def test_what_is_wrong_with_dataset_json_is_said(raw, content, message):
    path = raw / "Dataset003_Liver" / "dataset.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        find_raw_dataset(3)


@pytest.mark.parametrize(("wrong", "right"), [("phantom7", "Dataset007_phantom"), ("Dataset9_X", "Dataset009_X")])
def test_suggested_names_are_valid(wrong, right):
    assert suggest_dataset_name(wrong) == right
