"""The study file and its jobs: what is asked for, under which names, and what wrong names are answered with."""

import json
import time

import pytest

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.study.study_file import new_study, read_study
from nnunet_livseg.study.study_jobs import plan_study

from .conftest import DATASET


def read(place, text):
    (place.folder / "nnUNet_raw" / DATASET).mkdir(exist_ok=True)
    return plan_study(read_study(place.study(text)))


def test_a_new_file_can_be_run_as_it_is(place):
    path = place.folder / "study.toml"
    new_study(path, dataset="901", rows=["sfan", "DPCNetTrainer"])
    plan = read(place, path.read_text())
    assert [method.label for method in plan.methods] == ["sfan", "dpcnet"] and plan.baseline == "sfan"
    assert len(plan.trainings) == 2 * 5
    with pytest.raises(UserError, match="is there already and stays"):
        new_study(path, dataset="901", rows=[])


def test_jobs_are_the_product_in_the_order_of_folds(place):
    plan = read(
        place,
        'datasets = ["901"]\nrows = ["dpcnet", "sfan"]\nrecipes = ["paper", "nnunet"]\n'
        'configurations = ["2d", "3d_fullres"]\nfolds = [0, 3]\nseeds = [0, 1]',
    )
    assert len({training.name for training in plan.trainings}) == len(plan.trainings) == 2 * 2 * 2 * 2 * 2
    assert [training.fold for training in plan.trainings[:9]] == ["0"] * 8 + ["3"]
    assert plan.methods[1].label == "dpcnet paper 3d_fullres"
    assert plan.trainings[3].name == f"{DATASET}/DPCNetTrainer__DPCNetNnunetPlansSeed0__3d_fullres/fold_0"
    command = plan.trainings[3].command("cpu")
    assert command[:4] == ["nnUNetv2_train", "901", "3d_fullres", "0"] and command[-1] == "--c"


def test_names_of_plans_are_those_of_livseg_plan_unless_the_study_changes_something(place):
    text = 'datasets = [901]\nrows = ["dpcnet"]\nfolds = [0]\n'
    assert read(place, text).trainings[0].plans == "DPCNetPlans"
    assert read(place, text + "[settings]\nepochs = 3").trainings[0].plans == "StudyDPCNetPlans"


@pytest.mark.parametrize(
    ("key", "value", "other_kind"),
    [
        ("epochs", 3, "3.5"),
        ("iterations", 3, "[3]"),
        ("validation_iterations", 3, "true"),
        ("learning_rate", 0.1, "[0.1]"),
        ("learning_rate", 1, "true"),
        ("augmentation", "ct", "1"),
        ("synthetic_tumors", 0.5, '"often"'),
        ("loss", "dice_ce", "1"),
        ("patch", [32, 32, 32], "32"),
        ("batch", 2, '"2"'),
        ("spacing_mm", [4.0, 4, 4], "4"),
        ("features", [8, 16], "8"),
    ],
)
def test_settings_are_options_of_livseg_plan(place, key, value, other_kind):
    text = f'datasets = [901]\nrows = ["dpcnet"]\n[settings]\n{key} = '
    (spec,) = read(place, text + json.dumps(value)).plans
    assert getattr(spec.overrides, key) == (tuple(value) if isinstance(value, list) else value)
    with pytest.raises(UserError, match=rf"{key} in \[settings\] is .*not what livseg plan takes"):
        read(place, text + other_kind)


def test_what_does_not_exist_is_left_out_and_said(place):
    plan = read(place, 'datasets = [901]\nrows = ["dpcnet", "mfcnet"]\npresets = ["default", "paper"]\nfolds = [0]')
    assert [method.label for method in plan.methods] == ["dpcnet default", "dpcnet paper", "mfcnet default"]
    assert plan.left_out == {"mfcnet paper": "preset paper is for 2d"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('datasets = [901]\nrows = ["dpcnt"]', "no variant 'dpcnt'. Did you mean dpcnet"),
        ('datasets = [901]\nrow = ["dpcnet"]', "no key 'row'. Did you mean rows"),
        ('datasets = [901]\nrows = ["dpcnet"]\npresets = ["papr"]', "'papr'. Did you mean paper"),
        ('datasets = [901]\nrows = ["dpcnet"]\nrecipes = ["nnunt"]', "no recipe 'nnunt'. Did you mean nnunet"),
        ('datasets = [901]\nrows = ["dpcnet"]\nconfigurations = ["3d_fulres"]', "Did you mean 3d_fullres"),
        ('datasets = [901]\nrows = ["dpcnet"]\ndevice = "cudda"', "no device 'cudda'. Did you mean cuda"),
        ('datasets = [901]\nrows = ["dpcnet"]\n[settings]\nepoch = 2', "'epoch'. Did you mean epochs"),
        ('datasets = [901]\nrows = ["dpcnet"]\n[slurm]\npartion = "a"', "'partion'. Did you mean partition"),
        ('datasets = [901]\nrows = ["dpcnet"]\n[slurm]\nhours = "a day"', "hours in [slurm] is 'a day'"),
        ('datasets = [901]\nrows = ["dpcnet"]\n[slurm]\ngpus = 2', "uses one GPU"),
        (
            'datasets = [901]\nrows = ["dpcnet"]\n[settings]\nlearning_rate = "low"',
            "learning_rate in [settings] is 'low'",
        ),
        ('datasets = [901]\nrows = ["dpcnet"]\nbaseline = "dpcnett"', "baseline 'dpcnett' is none of"),
        ('datasets = ["Dataset901_Phantm"]\nrows = ["dpcnet"]', "Did you mean Dataset901_Phantom"),
        ('datasets = [901]\nrows = ["dpcnet"]\nfolds = ["first"]', 'must be numbers or "all"'),
        ('datasets = [901]\nrows = ["dpcnet"]\nseeds = [-1]', "whole numbers of at least 0"),
        ('datasets = [901]\nrows = ["dpcnet"]\ngpus = "two"', "gpus is 'two', but must be a whole number"),
        ('datasets = [901]\nrows = ["dpcnet"]\ntest = "yes"', "test is 'yes', but must be true or false"),
        ('datasets = [901]\nrows = ["mfcnet"]\npresets = ["paper"]', "no combination of rows"),
        ("datasets = [901]", "names no rows"),
        ("datasets = [901", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_answered(place, text, message):
    with pytest.raises(UserError) as refused:
        read(place, text)
    assert message in str(refused.value)


def test_a_thousand_jobs_are_listed_in_under_a_second(place, capsys):
    (place.folder / "nnUNet_raw" / DATASET).mkdir()
    seeds = list(range(50))
    file = place.study(f'datasets = [901]\nrows = ["dpcnet", "sfan", "mpunet", "dpcnet-unet"]\nseeds = {seeds}')
    start = time.process_time()
    assert main(["study", "status", str(file)]) == 0
    assert time.process_time() - start < 1
    said = capsys.readouterr().out
    assert "1001 jobs: 1001 waiting" in said and said.count("\nwaiting") == 1000
