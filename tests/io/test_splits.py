"""Splits by patient: no leak, balanced, repeatable, and read by nnU-Net itself."""

import json

import pytest
from io_samples import ct_array, label_array, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.splits import cross_validation_splits, train_val_test_split

from ..matrix.nnunet import ENVIRONMENT, PLANNER, run

PATIENT_OF = {f"case_{n:03d}": f"patient_{n // 2:02d}" for n in range(46)}  # two CTs each
TUMOR = {case: int(case[5:]) % 8 < 2 for case in PATIENT_OF}  # a quarter of the patients


def leaks(splits, patient_of):
    """Patients with cases on both sides of a split, as sentences (empty: none)."""
    found = []
    for fold, split in enumerate(splits):
        sides = [{patient_of[case] for case in split[side]} for side in ("train", "val")]
        found += [f"fold {fold}: patient {patient} is on both sides" for patient in sorted(sides[0] & sides[1])]
    return found


def test_folds_cover_every_case_once_and_never_part_a_patient():
    result = cross_validation_splits(PATIENT_OF, 4, stratum_of=TUMOR, seed=0)
    assert sorted(case for split in result for case in split["val"]) == sorted(PATIENT_OF)
    for split in result:
        assert sorted(split["train"] + split["val"]) == sorted(PATIENT_OF)
        assert not {PATIENT_OF[case] for case in split["train"]} & {PATIENT_OF[case] for case in split["val"]}
    assert leaks(result, PATIENT_OF) == []
    sizes = [len(split["val"]) // 2 for split in result]
    assert max(sizes) - min(sizes) <= 1
    tumors = [sum(TUMOR[case] for case in split["val"]) // 2 for split in result]
    assert max(tumors) - min(tumors) <= 1 and sum(tumors) == 6


def test_folds_depend_on_the_seed_and_on_nothing_else():
    backwards = dict(reversed(PATIENT_OF.items()))
    assert cross_validation_splits(PATIENT_OF, 4, stratum_of=TUMOR, seed=1) == cross_validation_splits(
        backwards, 4, stratum_of=TUMOR, seed=1
    )
    assert cross_validation_splits(PATIENT_OF, 4, stratum_of=TUMOR, seed=1) != cross_validation_splits(
        PATIENT_OF, 4, stratum_of=TUMOR, seed=2
    )


def test_parts_count_patients_not_cases():
    split, test = train_val_test_split(PATIENT_OF, (15, 5, 3), seed=0)
    assert [len(split["train"]), len(split["val"]), len(test)] == [30, 10, 6]
    assert sorted(split["train"] + split["val"] + test) == sorted(PATIENT_OF)
    patients = [{PATIENT_OF[case] for case in part} for part in (split["train"], split["val"], test)]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])


def test_a_split_by_case_is_seen_as_a_leak():
    by_case = [{"train": ["case_000", "case_002"], "val": ["case_001"]}]
    assert leaks(by_case, PATIENT_OF) == ["fold 0: patient patient_00 is on both sides"]


def test_impossible_divisions_are_refused():
    with pytest.raises(UserError, match="there are only 23 patients"):
        cross_validation_splits(PATIENT_OF, 24, stratum_of=TUMOR, seed=0)
    with pytest.raises(UserError, match="needs at least 2"):
        cross_validation_splits(PATIENT_OF, 1, stratum_of=TUMOR, seed=0)
    with pytest.raises(UserError, match=r"--split 88 22 20 adds up to 130, but there are 23 patients \(46 cases\)"):
        train_val_test_split(PATIENT_OF, (88, 22, 20), seed=0)
    with pytest.raises(UserError, match="training and validation need at least one"):
        train_val_test_split(PATIENT_OF, (23, 0, 0), seed=0)


def lits(folder, count):
    for n in range(count):
        write(ct_array(), folder / f"volume-{n}.nii")
        write(label_array(), folder / f"segmentation-{n}.nii")
    return folder


def test_split_puts_test_cases_where_nnunet_does_not_train_on_them(tmp_path, livseg):
    source = lits(tmp_path / "src", 7)
    command = ("convert", "lits", source, "--id", 3, "--out", tmp_path, "--workers", 1)
    status, printed = livseg(*command, "--split", 3, 2, 1)
    assert status == 1 and "--split 3 2 1 adds up to 6, but there are 7 patients" in printed
    assert livseg(*command, "--split", 3, 2, 1, "--exclude", "lits_004")[0] == 0
    folder = tmp_path / "Dataset003_LiTS"
    (split,) = json.loads((folder / "splits_final.json").read_text())
    tests = {path.name[:8] for path in folder.glob("labelsTs/*")}
    assert len(split["train"]) == 3 and len(split["val"]) == 2 and len(tests) == 1
    assert {path.name[:8] for path in folder.glob("imagesTr/*")} == {*split["train"], *split["val"]}
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 5
    # another choice later leaves no case on two sides
    assert livseg(*command, "--cv-folds", 7)[0] == 0
    assert not list(folder.glob("*Ts/*")) and len(list(folder.glob("imagesTr/*"))) == 7


def test_other_splits_in_the_preprocessed_folder_are_pointed_out(tmp_path, livseg, monkeypatch):
    """nnU-Net's trainer would silently use the old ones."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    old = tmp_path / "pre/Dataset003_LiTS/splits_final.json"
    old.parent.mkdir(parents=True)
    old.write_text("[]")
    command = ("convert", "lits", lits(tmp_path / "src", 2), "--id", 3, "--cv-folds", 2, "--out", tmp_path / "raw")
    _, printed = livseg(*command)
    assert f"Other splits are in {old}, and nnU-Net's trainer reads that file." in printed
    old.write_bytes((tmp_path / "raw/Dataset003_LiTS/splits_final.json").read_bytes())
    assert "Other splits" not in livseg(*command)[1]


@pytest.mark.slow
def test_nnunet_accepts_the_dataset_and_its_planner_takes_the_splits(tmp_path, livseg):
    """nnU-Net's own integrity check, fingerprint and planning."""
    raw, preprocessed = tmp_path / "raw", tmp_path / "pre"
    assert livseg("convert", "lits", lits(tmp_path / "src", 4), "--id", 3, "--cv-folds", 2, "--out", raw)[0] == 0
    folders = {"nnUNet_raw": str(raw), "nnUNet_preprocessed": str(preprocessed), "nnUNet_results": str(tmp_path)}
    options = ["-d", "3", "--verify_dataset_integrity", "--no_pp", "-npfp", "1"]
    run(["nnUNetv2_plan_and_preprocess", *options], ENVIRONMENT | PLANNER | folders, tmp_path / "log.txt")
    copied = json.loads((preprocessed / "Dataset003_LiTS/splits_final.json").read_text())
    assert copied == json.loads((raw / "Dataset003_LiTS/splits_final.json").read_text())
    plans = json.loads((preprocessed / "Dataset003_LiTS/nnUNetPlans.json").read_text())
    assert plans["image_reader_writer"] == "SimpleITKIO"
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
