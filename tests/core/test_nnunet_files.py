"""Files and folders of nnU-Net that a person or a full disk has damaged: one message each."""

import json

import pytest

from nnunet_livseg.core.dataset_json import channel_names, read_dataset_json, read_splits
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.nnunet_folders import fold_folders, read_plans, trained_dataset

SPLITS = {
    "cut": ("[{", "is damaged: Expecting property name.*line 1"),
    "empty": ("", "is damaged: the file is empty"),
    "no list": ("{}", "contains no list of folds"),
    "no validation": (json.dumps([{"train": ["a"]}]), "fold 0 does not have the lists 'train' and 'val'"),
    "a string": (json.dumps([{"train": "a", "val": ["b"]}]), "fold 0 does not have the lists"),
    "numbers": (
        json.dumps([{"train": ["a"], "val": ["b"]}, {"train": [1], "val": ["b"]}]),
        "fold 1 does not have the lists",
    ),
    "lists": (json.dumps([["a"], ["b"]]), "fold 0 does not have the lists"),
}


@pytest.mark.parametrize(("text", "message"), SPLITS.values(), ids=SPLITS)
def test_damaged_splits(tmp_path, text, message):
    (tmp_path / "splits_final.json").write_text(text)
    with pytest.raises(UserError, match=r"splits_final\.json is damaged.*\n  .*livseg convert, or remove it") as said:
        read_splits(tmp_path / "splits_final.json")
    assert said.match(message)


def test_splits(tmp_path):
    folds = [{"train": ["a"], "val": ["b"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert read_splits(tmp_path / "splits_final.json") == folds


@pytest.mark.parametrize("text", ["{", "[]", '{"configurations": []}', '{"plans_name": "x"}'])
def test_damaged_plans(tmp_path, text):
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(UserError, match=r"plans\.json is damaged.*\n  Copy the model again"):
        read_plans(tmp_path / "plans.json")


def test_folds_of_a_training(tmp_path):
    for name in ("fold_10", "fold_2", "fold_all", "fold_0_old", "fold_x", "fold_3_empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "validation").mkdir()
    (tmp_path / "fold_5").mkdir()
    assert list(fold_folders(tmp_path, "validation")) == ["2", "10", "all"]
    assert fold_folders(tmp_path, "validation")["2"] == tmp_path / "fold_2"


def test_the_dataset_of_a_training(tmp_path):
    fold = tmp_path / "Dataset003_Liver" / "T__P__2d" / "fold_0" / "validation"
    fold.mkdir(parents=True)
    assert trained_dataset(fold) == trained_dataset(fold.parents[1]) == "Dataset003_Liver"
    (fold.parents[1] / "plans.json").write_text(json.dumps({"dataset_name": "Dataset004_Other"}))
    assert trained_dataset(fold) == "Dataset004_Other"
    (fold.parents[1] / "plans.json").write_text("{")
    with pytest.raises(UserError, match=r"plans\.json is damaged"):
        trained_dataset(fold)


def test_only_what_is_required_has_to_be_there(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0}, "modality": {"1": "b", "0": "a"}}))
    found = read_dataset_json(tmp_path, required=("labels",))
    assert found.channels == ["a", "b"]
    with pytest.raises(UserError, match=r"lacks channel_names and numTraining and file_ending .*v1 called it"):
        read_dataset_json(tmp_path)
    with pytest.raises(UserError, match="names no channels"):
        channel_names({"labels": {}})
