"""livseg plan in the situations that people report: one tiny dataset, preprocessed by nnU-Net's own class."""

import copy
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.diagnostics.demo import Demo
from nnunet_livseg.plans import STOCK_UNETS
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.training.transfer import load_matching
from nnunet_livseg.variants import find_variant

CASES = [f"case_{number}" for number in range(5)]
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "numTraining": len(CASES),
    "file_ending": ".nii.gz",
}
OLD_KEYS = {"UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 8}


def stock_plans():
    """As nnU-Net plans thick slices: 2D, two 3D resolutions and the cascade."""
    resampling = {}
    for what in ("data", "seg", "probabilities"):
        resampling[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": what == "seg", "order": 1 if what == "seg" else 3, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{what}_kwargs"] = options
    common = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_dice": False,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
    }
    configurations = {}
    for name, spacing in (("2d", [2.0, 2.0]), ("3d_fullres", [4.0, 2.0, 2.0]), ("3d_lowres", [4.0, 3.0, 3.0])):
        dims = len(spacing)
        configuration = stock_configuration(dims, patch=(32,) * dims, features=(4, 6, 8))
        sizes = {"median_image_size_in_voxels": [32.0] * dims, "spacing": spacing}
        configurations[name] = {**configuration, **common, **sizes, "data_identifier": f"nnUNetPlans_{name}"}
    configurations["3d_lowres"]["next_stage"] = "3d_cascade_fullres"
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {
        "dataset_name": "Dataset003_Liver",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [4.0, 2.0, 2.0],
        "original_median_shape_after_transp": [16, 32, 32],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 40.0, "percentile_00_5": -20.0, "percentile_99_5": 200.0}
        },
    }


def preprocess(folder, name="nnUNetPlans", configuration="3d_fullres", cases=CASES):
    """What nnUNetv2_preprocess does to random scans, by nnU-Net's own class and without its processes."""
    plans = PlansManager(json.loads((folder / f"{name}.json").read_text()))
    chosen = plans.get_configuration(configuration)
    out = folder / chosen.data_identifier
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    random = np.random.default_rng(0)
    for case in cases:
        scan = random.integers(-900, 900, (1, 8, 32, 32)).astype(np.float32)
        labels = random.integers(0, 3, (1, 8, 32, 32)).astype(np.int8)
        given = {"spacing": [4.0, 2.0, 2.0]}
        done = DefaultPreprocessor(verbose=False).run_case_npy(scan, labels, given, plans, chosen, DATASET_JSON)
        data, seg, properties = done
        chunks = dict.fromkeys(("chunks", "blocks", "chunks_seg", "blocks_seg"), data.shape)
        nnUNetDatasetBlosc2.save_case(data, seg.astype(np.int16), properties, str(out / case), **chunks)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """nnU-Net's three folders with the dataset in them, preprocessed in 3d_fullres."""
    base = tmp_path_factory.mktemp("planning")
    raw, folder = (base / part / "Dataset003_Liver" for part in ("nnUNet_raw", "nnUNet_preprocessed"))
    (raw / "imagesTr").mkdir(parents=True)
    for case in CASES:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").touch()
    folder.mkdir(parents=True)
    (base / "nnUNet_results").mkdir()
    for place in (raw, folder):
        (place / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (folder / "nnUNetPlans.json").write_text(json.dumps(stock_plans()))
    preprocess(folder)
    return base


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it (hard links to the data), which the environment names; the preprocessed dataset's folder."""
    for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(part, str(tmp_path / part))
        for path in [made / part, *(made / part).rglob("*")]:
            copied = tmp_path / part / path.relative_to(made / part)
            if path.is_dir():
                copied.mkdir()
            elif path.suffix == ".json":
                copied.write_text(path.read_text())
            else:
                os.link(path, copied)
    return tmp_path / "nnUNet_preprocessed" / "Dataset003_Liver"


@pytest.fixture
def plan(place, capsys):
    """Run ``livseg plan -d 3 ...``; returns what it said, having checked its exit status."""

    def run(*args, status=0, variant="dpcnet-unet"):
        done = main(["plan", "-d", "3", "-m", variant, *map(str, args)])
        said = capsys.readouterr()
        assert done == status, said
        return said.err if status else said.out

    return run


def change(path, **changes):
    """Change entries of a JSON file; double underscores go down."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        at = content
        *parents, last = name.split("__")
        for key in parents:
            at = at[key]
        at[last] = value
    path.write_text(json.dumps(content))


# --- no experiment replaces another -----------------------------------------------------------------------------------


def test_the_pairs_of_the_readme_are_experiments_of_their_own(place, plan, tmp_path):
    other = json.loads((place / "nnUNetPlans.json").read_text()) | {"plans_name": "nnUNetResEncUNetMPlans"}
    (place / "nnUNetResEncUNetMPlans.json").write_text(json.dumps(other))
    checkpoint = tmp_path / "stock.pth"
    torch.save({"network_weights": build(other["configurations"]["3d_fullres"]).state_dict()}, checkpoint)
    experiments = {
        "DPCNetUNetPlans": [],
        "DPCNetUNetNnunetPlans": ["--recipe", "nnunet"],
        "DPCNetUNetResEncUNetMPlans": ["-p", "nnUNetResEncUNetMPlans"],
        "DPCNetUNetResEncUNetMNnunetPlans": ["-p", "nnUNetResEncUNetMPlans", "--recipe", "nnunet"],
        "DPCNetUNetInitPlans": ["--init", checkpoint],
        "DPCNetUNetTable4Plans": ["--preset", "table4"],
        "MinePlans": ["--recipe", "nnunet", "-plans_name", "MinePlans"],
    }
    for name, args in experiments.items():
        assert f"wrote {place / name}.json" in plan(*args)
    written = {path.name: path.read_bytes() for path in place.glob("*.json")}
    assert len(written) == len(experiments) + 3  # nnU-Net's two plans, and dataset.json
    for name, args in experiments.items():
        said = plan(*args)
        assert f"unchanged: {place / name}.json" in said and f"-p {name}" in said
    assert {path.name: path.read_bytes() for path in place.glob("*.json")} == written


@pytest.mark.parametrize(
    ("args", "differs"),
    [
        (["--epochs", 5], r"3d_fullres.recipe.epochs: 1000 there, 5 asked for"),
        (["--recipe", "nnunet"], r"3d_fullres.recipe.optimizer: \"adam\" there, \"sgd\" asked for; .*; and \d+ more"),
        (["--loss", "ce"], r"3d_fullres.loss: \"dice_ce\" there, \"ce\" asked for"),
        (["--batch", 7], r"3d_fullres.batch_size: 2 there, 7 asked for"),
        (["--spacing", 4, 3, 3], r"3d_fullres.spacing: \[4.0, 2.0, 2.0\] there, \[4.0, 3.0, 3.0\] asked for"),
        (["--option", "supervise_pyramid=true"], r"supervise_pyramid: false there, true asked for"),
        (["-c", "3d_fullres", "2d"], r"2d: nothing there, \{"),
    ],
    ids=lambda args: str(args[0]) if isinstance(args, list) else "",
)
def test_other_content_under_a_name_is_refused(place, plan, args, differs):
    given = ["-plans_name", "MyPlans", "-c", "3d_fullres"]
    plan(*given)
    before = (place / "MyPlans.json").read_bytes()
    said = plan(*given, *args, status=1)
    assert re.search(rf"MyPlans.json contains other plans \(.*{differs}.*\), which stay as they are", said), said
    assert "Choose another name with -plans_name, or remove that file if nothing needs it" in said
    assert (place / "MyPlans.json").read_bytes() == before


def test_plans_of_a_training_stay_whatever_changes(place, plan, tmp_path):
    plan()
    model = tmp_path / "nnUNet_results" / "Dataset003_Liver" / "DPCNetUNetTrainer__DPCNetUNetPlans__3d_fullres"
    model.mkdir(parents=True)
    change(place / "nnUNetPlans.json", foreground_intensity_properties_per_channel__0__mean=90.0)
    said = plan(status=1)
    assert f"Trained with them: {model.name}.\n  Choose another name with -plans_name.\n" in said
    model.rename(model.with_name("DPCNetUNetTrainer__DPCNetUNetPlansToo__3d_fullres"))  # of others
    plan()


def test_a_dataset_that_nnunet_has_planned_again_renews_plans(place, plan):
    plan("--epochs", 5)
    change(place / "nnUNetPlans.json", foreground_intensity_properties_per_channel__0__mean=90.0)
    assert "recipe.epochs: 5 there, 1000 asked for" in plan(status=1)
    said = plan("--epochs", 5)
    assert f"renewed, because nnU-Net has planned the dataset again: {place / 'DPCNetUNetPlans.json'}" in said
    assert "nnUNetv2_preprocess" in said  # nnU-Net's data are of before
    content = json.loads((place / "DPCNetUNetPlans.json").read_text())
    assert content["foreground_intensity_properties_per_channel"]["0"]["mean"] == 90.0


def test_recipes_of_an_earlier_version_lack_entries_and_are_the_same(place, plan):
    plan()
    content = json.loads((place / "DPCNetUNetPlans.json").read_text())
    for configuration in content["configurations"].values():
        configuration.get("livseg", {"recipe": {"stop_below": None}})["recipe"].pop("stop_below")
    (place / "DPCNetUNetPlans.json").write_text(json.dumps(content))
    assert "unchanged" in plan()


# --- commands ---------------------------------------------------------------------------------------------------------


def test_data_that_belong_to_the_plans_are_not_made_again(plan):
    assert "nnUNetv2_preprocess" not in plan("-c", "3d_fullres")
    said = plan("-plans_name", "AllPlans")  # the cascade reads the data of 3d_fullres
    assert "nnUNetv2_preprocess -d 3 -plans_name AllPlans -c 2d 3d_lowres\n" in said


def _no_folder(place):
    (place / "nnUNetPlans_3d_fullres").rename(place / "elsewhere")


def _empty(place):
    _no_folder(place)
    (place / "nnUNetPlans_3d_fullres").mkdir()


def _cut(place, ending):
    path = place / "nnUNetPlans_3d_fullres" / f"{CASES[0]}{ending}"
    content = path.read_bytes()[:20]
    path.unlink()  # a hard link
    path.write_bytes(content)


def _cut_properties(place):
    _cut(place, ".pkl")


def _cut_image(place):
    _cut(place, ".b2nd")


def _other_spacing(place):
    change(place / "nnUNetPlans.json", configurations__3d_fullres__spacing=[4.0, 4.0, 4.0])


def _other_intensities(place):
    change(place / "nnUNetPlans.json", foreground_intensity_properties_per_channel__0__percentile_00_5=50.0)


def _one_more_case(place):
    raw = place.parents[1] / "nnUNet_raw" / place.name / "imagesTr"
    (raw / "later_0000.nii.gz").touch()


def _other_labels(place):
    change(place / "dataset.json", labels={"background": 0, "liver": 1})


@pytest.mark.parametrize(
    "changed",
    [
        _no_folder,
        _empty,
        _cut_properties,
        _cut_image,
        _other_spacing,
        _other_intensities,
        _one_more_case,
        _other_labels,
    ],
)
def test_data_that_do_not_belong_to_the_plans_are_made_again(place, plan, changed):
    changed(place)
    assert "nnUNetv2_preprocess -d 3 -plans_name DPCNetUNetPlans -c 3d_fullres\n" in plan("-c", "3d_fullres")


def test_data_of_plans_that_had_the_name_before(place, plan):
    """Removed by hand and planned anew: the data are older than the plans, whether or not they look alike."""
    given = ["-plans_name", "OwnPlans", "-c", "3d_fullres", "--spacing"]
    command = "nnUNetv2_preprocess -d 3 -plans_name OwnPlans -c 3d_fullres\n"
    for spacing in ([4, 3, 3], [4, 4, 4]):
        assert command in plan(*given, *spacing)
        preprocess(place, "OwnPlans")
        assert command not in plan(*given, *spacing)
        (place / "OwnPlans.json").unlink()
    plan(*given, 4, 4, 4)
    assert command in plan(*given, 4, 4, 4)


@pytest.mark.parametrize(
    ("splits", "cases", "fold", "stage"),
    [
        (None, 5, "0", "0 1 2 3 4"),
        (None, 4, "all", None),
        (None, 2, "all", None),
        ([{"train": CASES[:1], "val": CASES[1:2]}, {"train": CASES[1:2], "val": CASES[:1]}], 2, "0", "0 1"),
        ([{"train": CASES[:4], "val": CASES[4:]}], 5, "0", None),
    ],
)
@pytest.mark.parametrize("raw", [True, False], ids=["raw here", "raw elsewhere"])
def test_folds_that_can_be_trained(place, plan, monkeypatch, splits, cases, fold, stage, raw):
    change(place / "dataset.json", numTraining=cases)
    for case in CASES[cases:]:
        (place.parents[1] / "nnUNet_raw" / place.name / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    if not raw:
        monkeypatch.delenv("nnUNet_raw")
    if splits is not None:
        (place / "splits_final.json").write_text(json.dumps(splits))
    lines = [line.strip() for line in plan().splitlines()]
    chosen = "-tr DPCNetUNetTrainer -p DPCNetUNetPlans"
    first = f"nnUNetv2_train 3 3d_lowres all {chosen}"
    if stage is not None:
        first = f"for fold in {stage}; do nnUNetv2_train 3 3d_lowres $fold {chosen}; done"
    start = lines.index(f"nnUNetv2_train 3 2d {fold} {chosen}")
    assert lines[start + 1] == f"nnUNetv2_train 3 3d_fullres {fold} {chosen}"
    assert lines[start + 2].startswith(first)
    assert lines[start + 3] == f"nnUNetv2_train 3 3d_cascade_fullres {'all' if stage is None else 0} {chosen}"
    assert lines[start + 4] == f"nnUNetv2_predict -i IMAGES -o OUT -d 3 -c 2d -f {fold} {chosen}"
    assert len(lines) == start + 5


def test_prediction_at_the_scales_of_the_validation(plan):
    said = plan("--preset", "paper", "--patch", 64, 64, variant="sfan")
    assert (
        "livseg predict --scales 0.5 1 1.5 -i IMAGES -o OUT -d 3 -c 2d -f 0 -tr SFANTrainer -p SFANPaperPlans" in said
    )
    assert "nnUNetv2_predict" not in said
    assert "--scales" not in plan("-c", "2d", variant="sfan")


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ["3d_cascade_fullres"],
            "3d_cascade_fullres needs 3d_lowres and 3d_fullres. Name them too: "
            "-c 3d_fullres 3d_lowres 3d_cascade_fullres.",
        ),
        (["3d_fullres", "3d_cascade_fullres"], "3d_cascade_fullres needs 3d_lowres and 3d_fullres"),
        (["2d", "3d_big"], "3d_big needs 3d_fullres. Name them too: -c 2d 3d_fullres 3d_big."),
        (["3d_lost"], "3d_lost needs 3d_gone, but the plans have no 3d_gone"),
    ],
)
def test_what_is_asked_for_by_name_is_never_left_out(place, plan, asked, message):
    change(
        place / "nnUNetPlans.json",
        configurations__3d_big={"inherits_from": "3d_fullres", "batch_size": 4},
    )
    if "3d_lost" in asked:
        change(
            place / "nnUNetPlans.json",
            configurations__3d_lost={"previous_stage": "3d_gone"} | stock_plans()["configurations"]["3d_fullres"],
        )
    assert message in plan("-c", *asked, status=1)
    assert not (place / "DPCNetUNetPlans.json").exists()


def test_next_stages_that_are_left_out_are_named_no_more(place, plan):
    change(place / "nnUNetPlans.json", configurations__3d_lowres__next_stage=["3d_cascade_fullres", "another"])
    plan("-plans_name", "AllPlans")
    plan("-plans_name", "LowPlans", "-c", "3d_lowres")
    both = [
        json.loads((place / f"{name}Plans.json").read_text())["configurations"]["3d_lowres"] for name in ("All", "Low")
    ]
    assert both[0]["next_stage"] == ["3d_cascade_fullres"] and "next_stage" not in both[1]


def test_a_configuration_with_a_network_of_its_own_gets_ours(place, plan):
    """It inherits the rest; nnU-Net takes such entries."""
    wide = copy.deepcopy(stock_plans()["configurations"]["3d_fullres"]["architecture"])
    wide["arch_kwargs"]["features_per_stage"] = [8, 12, 16]
    change(place / "nnUNetPlans.json", configurations__3d_wide={"inherits_from": "3d_fullres", "architecture": wide})
    plan("-c", "3d_fullres", "3d_wide")
    content = json.loads((place / "DPCNetUNetPlans.json").read_text())["configurations"]["3d_wide"]
    assert content["architecture"]["network_class_name"] not in STOCK_UNETS
    assert content["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 12, 16]
    assert content["data_identifier"] == "nnUNetPlans_3d_fullres" and content["livseg"]["variant"] == "dpcnet-unet"


# --- plans of other versions ------------------------------------------------------------------------------------------


def old_plans(**more):
    """The plans as nnU-Net 2.2 wrote them: numbers of a U-Net instead of an architecture."""
    plans = stock_plans() | {"plans_name": "OldPlans"}
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    for configuration in plans["configurations"].values():
        if "architecture" not in configuration:
            continue
        kwargs = configuration.pop("architecture")["arch_kwargs"]
        configuration |= OLD_KEYS | more
        configuration["num_pool_per_axis"] = [2] * len(configuration["patch_size"])
        configuration["n_conv_per_stage_encoder"] = kwargs["n_conv_per_stage"]
        configuration["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"]
        configuration |= {"pool_op_kernel_sizes": kwargs["strides"], "conv_kernel_sizes": kwargs["kernel_sizes"]}
    return plans


@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_plans_of_an_older_nnunet_are_translated_by_nnunet(place, plan, network):
    old = old_plans(UNet_class_name=network)
    (place / "OldPlans.json").write_text(json.dumps(old))
    plan("-p", "OldPlans", "-plans_name", "NewPlans")
    content = json.loads((place / "NewPlans.json").read_text())
    with pytest.warns(UserWarning, match="old nnU-Net plans"):
        theirs = PlansManager(old).get_configuration("3d_fullres").network_arch_init_kwargs
    ours = content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert {key: ours[key] for key in theirs} == json.loads(json.dumps(theirs))
    build(content["configurations"]["3d_fullres"])
    assert content["foreground_intensity_properties_per_channel"]["0"]["mean"] == 100.0
    assert content["configurations"]["3d_cascade_fullres"] == old["configurations"]["3d_cascade_fullres"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (old_plans(UNet_class_name="MyUNet"), r"is incomplete or from an older nnU-Net.*Unknown architecture MyUNet"),
        (stock_plans() | {"configurations": {"2d": {"patch_size": [32, 32]}}}, r"it has no 'UNet_class_name'"),
        (stock_plans() | {"configurations": {"2d": {"inherits_from": "x"}}}, r"The configuration x does not exist"),
        ({"labels": {}}, r"is not a plans file: it has no configurations"),
        ("{", r"OldPlans.json is damaged: Expecting property name"),
    ],
    ids=["network", "no network", "heir", "other file", "cut"],
)
def test_plans_that_nnunet_cannot_read_are_refused_in_one_message(place, plan, content, message):
    (place / "OldPlans.json").write_text(content if isinstance(content, str) else json.dumps(content))
    said = plan("-p", "OldPlans", status=1)
    assert re.search(message, said)
    if "older" in message:
        assert "nnUNetv2_plan_experiment -d 3" in said


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("dataset.json", "{", r"dataset\.json is not valid JSON"),
        ("dataset.json", "{}", r"dataset\.json lacks labels"),
        ("splits_final.json", "{", r"splits_final\.json is damaged"),
        ("splits_final.json", '[{"train": []}]', r"fold 0 does not have the lists 'train' and 'val'"),
        (
            "dataset.json",
            json.dumps(
                DATASET_JSON
                | {"labels": {"background": 0, "tumor": [2], "liver": [1, 2]}, "regions_class_order": [2, 1]}
            ),
            r"writes the region liver \[1, 2\] as 1 over tumor",
        ),
        (
            "dataset.json",
            json.dumps(DATASET_JSON | {"labels": {"background": 0, "liver": [1, 2], "tumor": 2}}),
            "regions_class_order is missing",
        ),
        ("dataset.json", json.dumps(DATASET_JSON | {"labels": {"background": 0, "liver": 255}}), "values are 0, 255"),
    ],
)
def test_a_dataset_that_nnunet_cannot_train_with_gets_no_plans(place, plan, file, text, message):
    (place / file).write_text(text)
    assert re.search(message, plan(status=1))
    assert not (place / "DPCNetUNetPlans.json").exists()


def test_synthetic_tumors_need_a_tumor_among_the_labels(place, plan):
    (place / "dataset.json").write_text(json.dumps(DATASET_JSON | {"labels": {"background": 0, "liver": 1}}))
    assert "exactly one kind of tumor" in plan("--synthetic-tumors", "0.5", status=1)
    assert not (place / "DPCNetUNetPlans.json").exists()
    (place / "dataset.json").write_text(json.dumps(DATASET_JSON))
    assert "must be from 0 to 1" in plan("--synthetic-tumors", "50", status=1)
    plan("--synthetic-tumors", "0.5")
    written = json.loads((place / "DPCNetUNetPlans.json").read_text())["configurations"]["3d_fullres"]
    assert written["livseg"]["recipe"]["synthetic_tumors"] == 0.5


def test_augmentation_for_other_cts_needs_a_ct(place, plan):
    plan("--augmentation", "ct")
    file = place / "DPCNetUNetPlans.json"
    assert json.loads(file.read_text())["configurations"]["2d"]["livseg"]["recipe"]["augmentation"] == "ct"
    file.unlink()
    plans = stock_plans()
    plans["configurations"]["2d"]["normalization_schemes"] = ["ZScoreNormalization"]
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    said = plan("--augmentation", "ct", status=1)
    assert "channel 0 as a CT (ZScoreNormalization)" in said and "plan without --augmentation ct" in said
    assert not file.exists()


# --- initial weights --------------------------------------------------------------------------------------------------


@pytest.fixture
def weights_3d(tmp_path):
    path = tmp_path / "3d.pth"
    network = build(stock_plans()["configurations"]["3d_fullres"])
    torch.save({"network_weights": network.state_dict()}, path)
    return path


def test_weights_of_another_dimension_leave_a_configuration_out(place, plan, weights_3d):
    said = plan("--init", weights_3d)
    assert re.search(
        r"skipped 2d: nothing in .*3d.pth fits .*: its convolutions are 3D, and the network's are 2D", said
    )
    content = json.loads((place / "DPCNetUNetInitPlans.json").read_text())
    assert list(content["configurations"]) == ["3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    assert " 2d " not in said.partition("next:")[2]
    assert content["configurations"]["3d_fullres"]["livseg"]["recipe"]["init"] == str(weights_3d)


@pytest.mark.parametrize("asked", [["2d"], ["2d", "3d_fullres"]])
def test_weights_of_another_dimension_are_refused_where_it_was_asked_for(place, plan, weights_3d, asked):
    said = plan("--init", weights_3d, "-c", *asked, status=1)
    assert "2d cannot start from these weights: nothing in" in said and "convolutions are 3D" in said
    assert not (place / "DPCNetUNetInitPlans.json").exists()


@pytest.mark.parametrize("preset", ["starter", "tumors"])
def test_trainings_start_from_the_model_in_the_package(place, plan, preset):
    plan("--preset", preset, "--init", "starter")
    written = json.loads((place / f"DPCNetUNet{preset.capitalize()}InitPlans.json").read_text())
    configuration = written["configurations"]["3d_fullres"]
    report = load_matching(build(configuration, classes=3), Path(configuration["livseg"]["recipe"]["init"]))
    assert report.loaded and not report.adapted
    assert all("seg_layers" in name for name in report.new)  # heads of coarser outputs are no part of a prediction


def test_the_model_in_the_package_fits_its_own_presets_alone(place, plan):
    said = plan("--init", "starter", status=1)
    assert "trained with the presets starter and tumors, not with default" in said and "--preset tumors" in said
    assert not (place / "DPCNetUNetInitPlans.json").exists()


def test_a_demo_with_other_options_needs_another_folder(tmp_path, capsys):
    dataset = tmp_path / "nnUNet_preprocessed" / "Dataset901_Phantom"
    (dataset / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (dataset / "nnUNetPlans.json").write_text(json.dumps(stock_plans()))
    row = find_variant("dpcnet-unet")
    for _ in range(2):
        Demo(tmp_path, row, device="cpu", epochs=2)._plan()
    with pytest.raises(UserError, match=r"contains a demo with other options\.\n  Give those again, or another folder"):
        Demo(tmp_path, row, device="cpu", epochs=3)._plan()
