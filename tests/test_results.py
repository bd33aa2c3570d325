"""What comparisons of short trainings share, and how the results become docs/evidence/results.md."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, find_variant

PROJECT = Path(__file__).resolve().parents[1]


def script(path):
    sys.path.insert(0, str(path.parent))  # as python does
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tumors():
    return script(PROJECT / "benchmarks" / "real_tumors.py")


@pytest.fixture
def budget(tumors):
    length = {"epochs": 3, "iterations": 2, "validation_iterations": 1}
    return tumors.Budget(**length, batch=2, patch=64, spacing_mm=4.0, margin_mm=5.0, features=(4, 8), folds=2)


def test_every_paper_is_trained_under_both_recipes_on_one_channel(tumors):
    jobs = tumors.all_jobs()
    rows = {job: find_variant(job.system) for job in jobs if job.system != tumors.STOCK}
    for recipe in ("nnunet", "paper"):
        papers = [row.paper for job, row in rows.items() if job.recipe == recipe and not job.repeat]
        assert sorted(paper.key for paper in papers) == sorted(
            {row.paper.key for row in VARIANTS if not row.paper.rival}
        )
    assert all(row.phases < 2 and 2 in row.dims for row in rows.values())
    assert {job.loss for job in rows if job.recipe == "nnunet"} == {"dice_ce"}  # nnU-Net's
    assert jobs[0] == tumors.Job(tumors.STOCK, "nnunet")  # what the others are compared with
    assert (
        len({job.name for job in jobs})
        == len({(job.trainer, tumors.plans_of(job), job.repeat) for job in jobs})
        == len(jobs)
    )


def test_stock_plans_hold_nnunets_network_at_the_other_plans_geometry(tumors, budget):
    def plans(configuration):
        return {"plans_name": "P", "configurations": {"2d": configuration}}

    geometry = stock_configuration(2, patch=(64, 64), features=(32, 64, 128)) | {"livseg": {}, "batch_size": 7}
    geometry["architecture"]["network_class_name"] = find_variant("dpcnet-unet").network
    geometry["architecture"]["arch_kwargs"]["spacor"] = None
    content = tumors.stock_plans(plans(stock_configuration(2)), plans(geometry), budget, name="Plans", data="Other")
    assert content["plans_name"] == "Plans"
    found = content["configurations"]["2d"]
    assert found["data_identifier"] == "Other_2d"  # one set of preprocessed slices for all
    assert type(build(found, initialize=False)).__name__ == "PlainConvUNet"
    assert found["architecture"]["arch_kwargs"]["n_stages"] == 3
    assert (found["patch_size"], found["batch_size"]) == ([64, 64], 7)
    assert found["length"] == {"epochs": 3, "iterations": 2, "validation_iterations": 1}
    assert "livseg" not in found  # livseg plan starts from nnU-Net's own plans only


def test_a_finished_step_is_not_run_again_and_a_failed_one_is(tumors, tmp_path):
    place = tumors.Workplace(tmp_path, "D", {"epochs": 3})
    with pytest.raises(UserError, match=r"python -c raise SystemExit\('no space'\) failed:\n.*no space"):
        place.call("step", "python", "-c", "raise SystemExit('no space')")
    write = ("python", "-c", "open('runs', 'a').write('once ')")
    place.call("step", *write)
    tumors.Workplace(tmp_path, "D", {"epochs": 3}).call("step", *write)
    assert (tmp_path / "runs").read_text() == "once "
    assert place.steps["step"]["command"] == " ".join(write)


def test_other_settings_need_another_folder(tumors, tmp_path):
    tumors.Workplace(tmp_path, "D", {"epochs": 3}).call("step", "python", "-c", "pass")
    with pytest.raises(UserError, match=r"contains a run with other settings: .*'epochs': 3}.\n  Give another --work"):
        tumors.Workplace(tmp_path, "D", {"epochs": 4})


@pytest.fixture
def measured():
    """nnU-Net and SFAN, as ``real_tumors.json`` holds them."""
    ours = {"loss": "ce", "recipe": {"optimizer": "adam", "learning_rate": 1e-4, "schedule": "constant"}}
    against = {"difference": -0.016, "ci95": [-0.05, 0.01], "p_holm": 0.0002, "better": 8, "worse": 12}
    dice = {"global": 0.777, "mean": 0.4123, "ci95": [0.35, 0.46], "median": 0.5}
    strata = [
        {"stratum": "< 10 mm", "n": 9, "found": 3, "false": 1},
        {"stratum": "> 20 mm", "n": 5, "found": 4, "false": 0},
    ]
    common = {
        "parameters": 12_345_678,
        "trainings": [{"cpu_s": 99.6}, {"cpu_s": 100.1}],
        "scores": {"tumor": dice, "liver": dice | {"mean": 0.9}},
        "lesions": {"strata": strata, "false_per_case": 2.25},
    }
    stock = {"name": "nnunet-nnunet", "trainer": "nnUNetTrainerShort", "recipe": "nnunet", "repeat": 1, "livseg": None}
    sfan = {"name": "sfan-paper", "trainer": "SFANTrainer", "recipe": "paper", "repeat": 0, "livseg": ours}
    return {"jobs": [common | stock | {"against": None}, common | sfan | {"against": against}]}


def test_the_table_of_tumors_has_a_line_per_method(measured):
    generate = script(PROJECT / "docs" / "generate.py")
    assert generate.tumors_table(measured).splitlines()[2:] == [
        "| `nnUNetTrainerShort`, nnunet, again | nnU-Net's own | 41.2 (35.0 to 46.0) | 77.7 |  |  |  "
        "| 90.0 (35.0 to 46.0) |",
        "| `SFANTrainer`, paper | adam 0.0001, constant; `ce` | 41.2 (35.0 to 46.0) | 77.7 "
        "| -1.6 (-5.0 to +1.0) | < 0.001 | 8 / 12 | 90.0 (35.0 to 46.0) |",
    ]


def test_the_table_of_lesions_has_a_column_per_size(measured):
    generate = script(PROJECT / "docs" / "generate.py")
    head, _, stock, sfan = generate.lesions_table(measured).splitlines()
    assert head.startswith("| training | found, < 10 mm (of 9) | found, > 20 mm (of 5) | false lesions per patient |")
    assert stock == "| `nnUNetTrainerShort`, nnunet, again | 3 | 4 | 2.2 | 12.35M | 200 |"
    assert sfan == "| `SFANTrainer`, paper | 3 | 4 | 2.2 | 12.35M | 200 |"


@pytest.mark.parametrize("file", ["results.json", "results_short.json"])
def test_the_printed_results_are_of_every_method_and_of_the_same_patients(tumors, file):
    """A new paper's row, or a run that was cut short, shows here."""
    found = json.loads((PROJECT / "docs" / "evidence" / file).read_text())
    jobs, names = tumors.all_jobs(), [job["name"] for job in found["jobs"]]
    known = [job.name for job in jobs]
    short = [job.name for job in jobs if job.system == tumors.STOCK or not job.repeat]  # the systems once each
    assert names == (short if file == "results_short.json" else [name for name in known if name in names])
    assert names[0] == tumors.FIRST.name
    assert {len(job["dice_of_patient"]) for job in found["jobs"]} == {12 * len(found["folds"])}
    assert len({tuple(job["dice_of_patient"]) for job in found["jobs"]}) == 1
    assert {len(job["trainings"]) for job in found["jobs"]} == {len(found["folds"])}
