"""A training reads no data that other plans have made: plans and data of nnU-Net, moved against each other."""

import json
import re

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.plans import KEY
from nnunet_livseg.trainers import TRAINERS
from nnunet_livseg.training.preprocessed_data import require_matching_data

from .conftest import CASES, dataset_json, make, plans, preprocess

OWN = r"\n  Make them again: nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres"


def check(place, content, described=None, configuration="3d_fullres"):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(content)
    folder = place / manager.get_configuration(configuration).data_identifier
    require_matching_data(folder, manager, configuration, described or dataset_json())


def changed(configuration="3d_fullres", *, statistics=None, **entries):
    content = plans()
    content["configurations"][configuration] |= entries
    content["foreground_intensity_properties_per_channel"]["0"] |= statistics or {}
    return content


WRONG = {
    "other spacing": (
        changed(spacing=[4.0, 2.5, 2.5]),
        dataset_json(),
        r"case_0 has 10 x 24 x 20 voxels, and at the plans' spacing of 4 x 2.5 x 2.5 mm it would have 10 x 19 x 16",
    ),
    "other order of the axes": (
        plans() | {"transpose_forward": [2, 0, 1]},
        dataset_json(),
        "case_0 has 10 x 24 x 20 voxels",
    ),
    "other window": (
        changed(statistics={"percentile_00_5": 0.0}),
        dataset_json(),
        r"channel 0 of case_\d has values from -2.75 to 2.75, and with .* it would have -2.25 to 2.75 at most",
    ),
    "other mean": (changed(statistics={"mean": 95.0}), dataset_json(), "it would have -2.88 to 2.62 at most"),
    "other deviation": (changed(statistics={"std": 42.0}), dataset_json(), "plans. CTNormalization it would have"),
    "other normalization": (
        changed(normalization_schemes=["RescaleTo01Normalization"]),
        dataset_json(),
        "plans' RescaleTo01Normalization it would have 0 to 1",
    ),
    "another channel": (
        plans(channels=2),
        dataset_json(channels=2),
        r"case_0 has 1 channels, but dataset.json has 2 \(CT, CT\)",
    ),
    "another label": (
        plans(),
        dataset_json(labels={"background": 0, "liver": 1, "tumor": 2, "cyst": 3}),
        "case_0 was made for the labels 1, 2, but dataset.json has 1, 2, 3",
    ),
    "a label less": (
        plans(),
        dataset_json(labels={"background": 0, "liver": 1}),
        "made for the labels 1, 2, but dataset.json has 1",
    ),
}


@pytest.mark.parametrize(("content", "described", "said"), WRONG.values(), ids=WRONG)
def test_data_of_other_plans_are_refused(place, content, described, said):
    with pytest.raises(UserError, match=rf"do not belong to the plans nnUNetPlans: (.|\n)*{said}(.|\n)*{OWN}"):
        check(place, content, described)


def test_a_mean_far_from_zero_was_not_z_scored(place):
    """The images of this dataset are around 0 in the plans' unit; these are not."""
    content = changed(statistics={"percentile_99_5": -19.0, "percentile_00_5": -20.0})
    preprocess(place, content, dataset_json(), "3d_fullres")
    check(place, content)
    with pytest.raises(UserError, match=r"has the mean -2.7\d, and the plans' ZScoreNormalization would make it 0"):
        check(place, changed(normalization_schemes=["ZScoreNormalization"]))


REGIONS = {"background": 0, "liver": [1, 2], "tumor": 2}
RIGHT = {
    "stock 2d": ("2d", plans(), dataset_json()),
    "stock 3d": ("3d_fullres", plans(), dataset_json()),
    "other plans on the same data": ("3d_fullres", plans(name="DPCNetPlans"), dataset_json()),
    "other patch and batch": ("3d_fullres", changed(patch_size=[8, 8, 8], batch_size=7), dataset_json()),
    "labels read as regions": ("3d_fullres", plans(), dataset_json(labels=REGIONS, regions_class_order=[1, 2])),
    "statistics that nothing reads": (
        "3d_fullres",
        changed(normalization_schemes=["NoNormalization"], statistics={"mean": 0.0}),
        dataset_json(),
    ),
    "resampling of somebody's own": (
        "3d_fullres",
        changed(resampling_fn_data="no_resampling_hack", spacing=[1.0, 1.0, 1.0], statistics={"mean": 0.0}),
        dataset_json(),
    ),
    "preprocessor of somebody's own": (
        "3d_fullres",
        changed(preprocessor_name="MyPreprocessor", spacing=[1.0, 1.0, 1.0]),
        dataset_json(),
    ),
}


@pytest.mark.parametrize(("configuration", "content", "described"), RIGHT.values(), ids=RIGHT)
def test_data_that_belong_to_the_plans_are_read(place, configuration, content, described):
    check(place, content, described, configuration)


MADE = {
    "coarser": ({"spacing": [5.0, 3.3, 2.7]}, {}, {}),
    "finer": ({"spacing": [3.1, 1.7, 1.9]}, {}, {}),
    "with torch": (
        {"spacing": [5.0, 3.3, 2.7], "resampling_fn_data": "resample_torch_fornnunet"}
        | {"resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False}},
        {},
        {},
    ),
    "z-scored": ({"normalization_schemes": ["ZScoreNormalization"], "spacing": [6.0, 3.0, 3.0]}, {}, {}),
    "z-scored inside a mask": ({"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}, {}, {}),
    "scaled": ({"normalization_schemes": ["RescaleTo01Normalization"], "spacing": [6.0, 3.0, 3.0]}, {}, {}),
    "regions with an ignore label": (
        {},
        {"labels": {**REGIONS, "ignore": 3}, "regions_class_order": [1, 2]},
        {},
    ),
    "labels with an ignore label": ({}, {"labels": {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}}, {}),
    "a window that clips nothing": ({}, {}, {"percentile_00_5": -5000.0, "percentile_99_5": 5000.0}),
    "anisotropic": ({"spacing": [20.0, 2.0, 2.0]}, {}, {}),
}


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(("entries", "description", "statistics"), MADE.values(), ids=MADE)
def test_whatever_nnunet_makes_is_read_with_the_plans_that_made_it(
    place, entries, description, statistics, configuration
):
    dim = int(configuration[0])
    entries = {key: value[-dim:] if key == "spacing" else value for key, value in entries.items()}
    content, described = changed(configuration, statistics=statistics, **entries), dataset_json(**description)
    preprocess(place, content, described, configuration)
    check(place, content, described, configuration)


def owned(statistics=None, **entries):
    """Plans of ours on the data of nnUNetPlans, as livseg plan writes them."""
    content = changed(statistics=statistics, **entries) | {"plans_name": "DPCNetPlans"}
    content["configurations"]["3d_fullres"][KEY] |= {"variant": "dpcnet", "preset": "default"}
    return content


def test_data_that_were_planned_again_need_new_plans_of_ours(place):
    """nnU-Net has planned and preprocessed again with more cases: the window is a little wider."""
    wider = changed(statistics={"percentile_00_5": -20.4, "percentile_99_5": 199.6, "mean": 90.4})
    for now in (wider, changed(statistics={"mean": 90.05})):
        preprocess(place, now, dataset_json(), "3d_fullres")
        (place / "nnUNetPlans.json").write_text(json.dumps(now))
        check(place, now)
        check(place, owned(now["foreground_intensity_properties_per_channel"]["0"]))
        with pytest.raises(
            UserError,
            match=r"Write these plans again.*livseg plan -d 901 -m dpcnet -p nnUNetPlans -plans_name DPCNetPlans$",
        ):
            check(place, owned())


def test_plans_that_nnunet_has_only_planned_again_leave_the_data_right(place):
    """The data are still those that our plans were made for."""
    (place / "nnUNetPlans.json").write_text(json.dumps(changed(statistics={"mean": 91.0})))
    check(place, owned())


def test_damaged_plans_of_the_owner_are_named_and_stop_no_training(place):
    (place / "nnUNetPlans.json").write_text('{"configurations": ')
    with pytest.warns(UserWarning, match=r"nnUNetPlans.json is damaged(.|\n)*is not checked. Plan again"):
        check(place, owned())


def test_the_command_never_replaces_the_data_of_other_plans(place):
    """With plans_name DPCNetPlans nnU-Net would overwrite the data of nnUNetPlans."""
    with pytest.raises(UserError) as said:
        check(place, owned(), dataset_json(labels={"background": 0, "liver": 1}))
    assert "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres" in str(said.value)
    assert not re.search("nnUNetv2_preprocess.* -plans_name DPCNetPlans", str(said.value))


def test_labels_that_nobody_declared_are_found(place):
    """A label map that nnU-Net's preprocessing has let pass, as 0/255 masks."""
    described = dataset_json(labels={"background": 0, "liver": 1})
    preprocess(place, plans(), described, "3d_fullres")  # the label maps hold 2
    with pytest.raises(
        UserError, match=r"map of case_0 contains 2, which .* declare .there are 0, 1(.|\n)*livseg check"
    ):
        check(place, plans(), described)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels": {"background": 0, "tumor": [2], "liver": [1, 2]}, "regions_class_order": [2, 1]}, "over tumor"),
        ({"labels": {"background": 0, "liver": [1, 2], "tumor": 2}}, "regions_class_order is missing"),
        ({"labels": {"background": 0, "liver": 255}}, "the label values are 0, 255"),
        ({"labels": {}}, "has no labels"),
    ],
)
def test_labels_that_nnunet_cannot_train_with_are_refused_before_files_are_made(place, labels, message):
    with pytest.raises(UserError, match=message):
        make(TRAINERS["DPCNetTrainer"], described=dataset_json() | labels)
    assert not list((place.parents[1] / "results").rglob("*"))


def test_damaged_splits_are_named(place):
    (place / "splits_final.json").write_text("[{")
    with pytest.raises(UserError, match=r"splits_final\.json is damaged"):
        make(TRAINERS["DPCNetTrainer"]).do_split()


def test_the_trainer_asks_at_its_start(place):
    content = changed("2d", spacing=[3.0, 3.0])
    trainer = make(TRAINERS["DPCNetTrainer"], content)
    with pytest.raises(UserError, match="do not belong to the plans"):
        trainer.run_training()
    trainer = make(TRAINERS["DPCNetTrainer"])
    for file in (place / "nnUNetPlans_2d").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"there are no preprocessed data in .*nnUNetPlans_2d.\n.*nnUNetv2_preprocess"):
        trainer.initialize()


@pytest.mark.parametrize(
    ("rest", "kept"), [(".pkl", 40), (".pkl", 0), (".pkl", None), (".b2nd", 40), ("_seg.b2nd", 40), ("_seg.b2nd", None)]
)
def test_data_that_a_kill_has_left_are_said_to_be_incomplete(place, rest, kept):
    file = place / "nnUNetPlans_3d_fullres" / f"{CASES[-1]}{rest}"
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[:kept])
    with pytest.raises(UserError, match=rf"are incomplete, as after a kill: (.|\n)*{OWN}"):
        check(place, plans())


def more_cases(folder, count):
    for i in range(count):
        for file in [*folder.glob(f"{CASES[0]}*")]:
            (folder / file.name.replace(CASES[0], f"more_{i:04d}")).hardlink_to(file)


def test_one_case_of_many_that_a_kill_has_left_is_found(place):
    more_cases(place / "nnUNetPlans_3d_fullres", 60)
    (place / "nnUNetPlans_3d_fullres" / "more_0017.pkl").unlink()
    with pytest.raises(UserError, match=rf"are incomplete, as after a kill: more_0017.pkl is missing.{OWN}"):
        check(place, plans())


def test_prediction_needs_no_data(place, monkeypatch):
    """The network is built from plans alone."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(changed("2d", spacing=[3.0, 3.0]))
    TRAINERS["DPCNetTrainer"].build_network_architecture(manager, manager.get_configuration("2d"), 1, 3, False)


def test_a_subclass_may_change_the_network_that_ours_builds(place):
    """Weights without pickle then name no network: the plans' one is not what it trains."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class Changed(TRAINERS["DPCNetTrainer"]):
        @classmethod
        def build_network_architecture(cls, *arguments):
            network = super().build_network_architecture(*arguments)
            network.changed = True
            return network

    manager = PlansManager(changed("2d", spacing=[3.0, 3.0]))
    assert Changed.build_network_architecture(manager, manager.get_configuration("2d"), 1, 3, False).changed
    assert Changed.architecture(manager, manager.get_configuration("2d")) is None
    assert TRAINERS["DPCNetTrainer"].architecture(manager, manager.get_configuration("2d")) is not None


def test_few_cases_of_many_are_read(place, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    opened, load = [], nnUNetDatasetBlosc2.load_case
    more_cases(place / "nnUNetPlans_3d_fullres", 100)
    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", lambda self, name: opened.append(name) or load(self, name))
    check(place, plans())
    assert opened == ["case_0", "more_0020", "more_0046", "more_0073", "more_0099"]
