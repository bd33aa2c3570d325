"""benchmarks/msd_liver_2d.py: what it runs, and how the results become docs/evidence/results.md."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, find_variant

from .matrix.nnunet import forked_run

PROJECT = Path(__file__).resolve().parents[1]


def script(path):
    sys.path.insert(0, str(path.parent))  # as python does
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def slices():
    return script(PROJECT / "benchmarks" / "msd_liver_2d.py")


@pytest.fixture
def budget(slices):
    return slices.Budget(
        epochs=3, iterations=2, validation_iterations=1, batch=2, patch=64, spacing=2.0, patients=(2, 1, 2)
    )


def test_every_paper_is_trained_under_both_recipes_on_one_channel(slices):
    jobs = slices.all_jobs()
    rows = {job: find_variant(job.system) for job in jobs if job.system != slices.STOCK}
    for recipe in ("nnunet", "paper"):
        papers = [row.paper for job, row in rows.items() if job.recipe == recipe]
        assert sorted(paper.key for paper in papers) == sorted(
            {row.paper.key for row in VARIANTS if not row.paper.rival}
        )
    assert all(row.phases < 2 and 2 in row.dims for row in rows.values())
    assert {job.loss for job in rows if job.recipe == "nnunet"} == {"dice_ce"}  # nnU-Net's
    assert jobs[0] == slices.Job(slices.STOCK, "nnunet")  # what the others are compared with
    assert (
        len({job.name for job in jobs})
        == len({(job.trainer, slices.plans_of(job), job.repeat) for job in jobs})
        == len(jobs)
    )


def test_patients_are_never_divided(slices, budget, tmp_path):
    source = tmp_path / "source"
    names = [f"msd{patient:03}_s{number:03}" for patient in range(5) for number in range(patient + 1)]
    for kind, ending in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        (source / kind).mkdir(parents=True)
        for name in names:
            (source / kind / f"{name}{ending}").touch()
    (source / "dataset.json").write_text('{"numTraining": 15, "file_ending": ".png"}')
    place = slices.Workplace(tmp_path / "work", slices.DATASET, vars(budget))
    slices.divide(source, place, budget)

    split, *again = json.loads((place.raw / "splits_final.json").read_text())
    test = [path.stem for path in (place.raw / "labelsTs").iterdir()]
    patients = [{slices.patient_of(case) for case in part} for part in (split["train"], split["val"], test)]
    assert [len(part) for part in patients] == [2, 1, 2]
    assert sorted([*split["train"], *split["val"], *test]) == names
    assert len(again) == max(job.repeat for job in slices.all_jobs())  # nnU-Net divides by case where a fold lacks
    assert all(same == split for same in again)
    described = json.loads((place.raw / "dataset.json").read_text())
    assert described == {"numTraining": len(names) - len(test), "file_ending": ".png"}


def test_stock_plans_hold_nnunets_network_at_the_other_plans_geometry(slices, budget):
    def plans(configuration):
        return {"plans_name": "P", "configurations": {"2d": configuration}}

    geometry = stock_configuration(2, patch=(64, 64), features=(32, 64, 128)) | {"livseg": {}, "batch_size": 7}
    geometry["architecture"]["network_class_name"] = find_variant("dpcnet-unet").network
    geometry["architecture"]["arch_kwargs"]["spacor"] = None
    content = slices.stock_plans(plans(stock_configuration(2)), plans(geometry), budget, name="Plans", data="Other")
    assert content["plans_name"] == "Plans"
    found = content["configurations"]["2d"]
    assert found["data_identifier"] == "Other_2d"  # one set of preprocessed slices for all
    assert type(build(found, initialize=False)).__name__ == "PlainConvUNet"
    assert found["architecture"]["arch_kwargs"]["n_stages"] == 3
    assert (found["patch_size"], found["batch_size"]) == ([64, 64], 7)
    assert found["length"] == {"epochs": 3, "iterations": 2, "validation_iterations": 1}
    assert "livseg" not in found  # livseg plan starts from nnU-Net's own plans only


def test_slices_of_a_patient_become_one_volume(slices, tmp_path):
    rng = np.random.default_rng(0)
    pictures = {f"msd00{p}_s{n:03}": rng.integers(0, 2, (4, 6), np.uint8) for p, n in ((1, 20), (2, 7), (1, 3))}
    for name, labels in pictures.items():
        sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / f"{name}.png")
    slices.stack(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["msd001.nii.gz", "msd002.nii.gz"]
    volume = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "msd001.nii.gz"))
    np.testing.assert_array_equal(volume, [pictures["msd001_s003"], pictures["msd001_s020"]])


def test_a_finished_step_is_not_run_again_and_a_failed_one_is(slices, tmp_path):
    place = slices.Workplace(tmp_path, "D", {"epochs": 3})
    with pytest.raises(UserError, match=r"python -c raise SystemExit\('no space'\) failed:\n.*no space"):
        place.call("step", "python", "-c", "raise SystemExit('no space')")
    write = ("python", "-c", "open('runs', 'a').write('once ')")
    place.call("step", *write)
    slices.Workplace(tmp_path, "D", {"epochs": 3}).call("step", *write)
    assert (tmp_path / "runs").read_text() == "once "
    assert place.steps["step"]["command"] == " ".join(write)


def test_other_settings_need_another_folder(slices, tmp_path):
    slices.Workplace(tmp_path, "D", {"epochs": 3}).call("step", "python", "-c", "pass")
    with pytest.raises(UserError, match=r"holds a run with other settings: .*'epochs': 3}.\n  Give another --work"):
        slices.Workplace(tmp_path, "D", {"epochs": 4})


def test_a_difference_is_this_training_minus_nnunet(slices):
    test = {"difference": 0.02, "ci95_low": -0.01, "ci95_high": 0.05, "p_holm": 0.3, "wins": 12, "losses": 8}
    assert slices.against_first(test) == {
        "difference": -0.02,
        "ci95": [-0.05, 0.01],
        "p_holm": 0.3,
        "better": 8,
        "worse": 12,
    }
    assert slices.against_first(None) is None


def test_the_table_has_a_line_per_training():
    generate = script(PROJECT / "docs" / "generate.py")
    ours = {"loss": "ce", "recipe": {"optimizer": "adam", "learning_rate": 1e-4, "schedule": "constant"}}
    against = {"difference": -0.016, "ci95": [-0.05, 0.01], "p_holm": 0.0002, "better": 8, "worse": 12}
    dice = {"mean": 0.8123, "ci95": [0.75, 0.86], "q1": 0.7, "median": 0.9, "q3": 0.95}
    common = {"parameters": 12_345_678, "steps": {"train": {"cpu_s": 99.6}}, "dice": dice}
    stock = {"name": "nnunet-nnunet", "trainer": "nnUNetTrainerShort", "recipe": "nnunet", "repeat": 0, "livseg": None}
    sfan = {"name": "sfan-paper", "trainer": "SFANTrainer", "recipe": "paper", "repeat": 0, "livseg": ours}
    jobs = [common | stock | {"against": None}, common | sfan | {"against": against}]
    assert generate.slices_table({"jobs": jobs}).splitlines()[2:] == [
        "| `nnUNetTrainerShort`, nnunet | nnU-Net's own | 12.35M | 100 | 81.2 (75.0 to 86.0) | 70.0, 90.0, 95.0"
        " |  |  |  |",
        "| `SFANTrainer`, paper | adam 0.0001, constant; `ce` | 12.35M | 100 | 81.2 (75.0 to 86.0) | 70.0, 90.0, 95.0"
        " | -1.6 (-5.0 to +1.0) | < 0.001 | 8 / 12 |",
    ]


def test_the_printed_results_are_of_every_training_and_of_the_same_patients(slices):
    """A new paper's row, or a run that was cut short, shows here."""
    found = json.loads((PROJECT / "docs" / "evidence" / "results.json").read_text())
    assert [job["name"] for job in found["jobs"]] == [job.name for job in slices.all_jobs()]
    assert {len(job["dice_of_patient"]) for job in found["jobs"]} == {found["budget"]["patients"][2]}
    assert len({tuple(job["dice_of_patient"]) for job in found["jobs"]}) == 1


@pytest.mark.slow
def test_the_whole_run_on_drawn_slices(slices, tmp_path, monkeypatch):
    """Discs as livers: every command runs, and the results say what was trained."""
    monkeypatch.setattr(sys.modules["workplace"], "subprocess", SimpleNamespace(run=forked_run))
    source, rng = tmp_path / "source", np.random.default_rng(0)
    y, x = np.ogrid[:64, :64]
    for case in (f"p{patient}_s{number}" for patient in range(5) for number in range(2)):
        liver = (y - rng.integers(25, 40)) ** 2 + (x - rng.integers(25, 40)) ** 2 < rng.integers(150, 250)
        picture = (60 + 80 * liver + rng.normal(0, 5, liver.shape)).astype(np.uint8)
        for kind, name, array in (("images", f"{case}_0000", picture), ("labels", case, liver.astype(np.uint8))):
            (source / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array), source / f"{kind}Tr" / f"{name}.png")
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".png"}
    (source / "dataset.json").write_text(json.dumps(described))
    length = {"epochs": 1, "iterations": 1, "validation_iterations": 1}
    budget = slices.Budget(**length, batch=2, patch=32, spacing=2.0, patients=(2, 1, 2))
    jobs = [slices.Job(slices.STOCK, "nnunet"), slices.Job("sfan", "paper", "ce")]

    found = slices.measure(source, tmp_path / "work", budget, jobs)
    assert [job["trainer"] for job in found["jobs"]] == ["nnUNetTrainerShort", "SFANTrainer"]
    assert [len(job["dice_of_patient"]) for job in found["jobs"]] == [2, 2]
    assert found["jobs"][0]["against"] is None
    means = [np.mean(list(job["dice_of_patient"].values())) for job in found["jobs"]]
    assert found["jobs"][1]["against"]["difference"] == pytest.approx(means[1] - means[0], abs=1e-3)
    assert found["jobs"][1]["livseg"]["loss"] == "ce"
    assert "Epoch 1" not in (tmp_path / "work" / "logs" / "nnunet-nnunet_train.log").read_text()  # one epoch, as asked
