"""What the labels of a dataset mean: one answer in every command."""

import json
import re

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_livseg.core.dataset_json import label_problems, region_order_problem, require_trainable
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import (
    LIVER,
    TUMOR,
    Structures,
    as_integers,
    declared,
    of_both,
    require_known,
    roles,
    structures_from_labels,
    structures_from_values,
)
from nnunet_livseg.data.check_dataset import _rules
from nnunet_livseg.data.convert.source_cases import our_values
from nnunet_livseg.data.liver_crop_dataset import require_liver
from nnunet_livseg.data.raw_dataset import RawDataset
from nnunet_livseg.evaluation.label_meaning import find_structures
from nnunet_livseg.inference.trained_model import TrainedModel
from nnunet_livseg.losses.weighted_ce import TUMOR_WEIGHT, WeightedCrossEntropy, weighted_ce

# --- every label dictionary in every caller ---------------------------------------------------------------------------

DICTIONARIES = {  # labels without background, regions_class_order, values of the liver and of the tumor
    "plain": ({"liver": 1, "tumor": 2}, None, {1, 2}, {2}),
    "values swapped": ({"tumor": 1, "liver": 2}, None, {1, 2}, {1}),
    "British": ({"Liver": 1, "Tumour": 2}, None, {1, 2}, {2}),
    "lesion": ({"liver": 1, "liver_lesion": 2}, None, {1, 2}, {2}),
    "cancer": ({"liver": 1, "cancer": 2}, None, {1, 2}, {2}),
    "a number behind": ({"liver": 1, "tumor_1": 2, "LiverTumor2": 3}, None, {1, 2, 3}, {2, 3}),
    "regions": ({"liver": [1, 2], "tumor": 2}, [1, 2], {1, 2}, {2}),
    "whole liver": ({"whole_liver": [1, 2], "tumor": [2]}, [1, 2], {1, 2}, {2}),
    "liver and tumor": ({"liver_and_tumor": [1, 2], "tumor": 2}, [1, 2], {1, 2}, {2}),
    "liver + lesions": ({"liver + lesions": [1, 2], "lesions": 2}, [1, 2], {1, 2}, {2}),
    "liver_tumor for both": ({"liver_tumor": [1, 2], "tumor": 2}, [1, 2], {1, 2}, {2}),
    "liver_tumor for all kinds": ({"liver": [1, 2, 3], "liver_tumor": [2, 3], "hcc": 3}, [1, 2, 3], {1, 2, 3}, {2, 3}),
    "healthy liver": ({"liver_without_tumor": 1, "tumor": 2}, None, {1, 2}, {2}),
    "two kinds": ({"liver": 1, "hcc": 2, "metastasis": 3}, None, {1, 2, 3}, {2, 3}),
    "two kinds as regions": ({"liver": [1, 2, 3], "hcc": 2, "metastasis": 3}, [1, 2, 3], {1, 2, 3}, {2, 3}),
    "ignore": ({"liver": 1, "tumor": 2, "ignore": 3}, None, {1, 2}, {2}),
    "values in lists": ({"liver": [1], "tumor": [2]}, None, {1, 2}, {2}),
    "other organs": ({"spleen": 1, "liver": 2, "tumor": 3, "hepatic_vein": 4}, None, {2, 3}, {3}),
    "another organ's tumor": ({"liver": 1, "tumor": 2, "kidney": 3, "kidney_tumor": 4}, None, {1, 2}, {2}),
    "thrombus": ({"liver": 1, "mass": 2, "tumor_thrombus": 3}, None, {1, 2}, {2}),
}


def described(labels, order):
    content = {"labels": {"background": 0, **labels}, "channel_names": {"0": "CT"}, "numTraining": 1}
    return content | {"file_ending": ".nii.gz"} | ({} if order is None else {"regions_class_order": order})


def written(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def model_folder(folder, content):
    (written(folder, content) / "fold_0").mkdir()
    (folder / "plans.json").write_text('{"configurations": {}}')
    (folder / "fold_0" / "checkpoint_final.pth").touch()
    return folder


def _evaluated(folder, content):
    return find_structures(written(folder, content)).values


def _checked(folder, content):
    found = _rules(RawDataset.open(written(folder, content)))
    return {LIVER: found.liver, TUMOR: found.tumor}


def _segmented(folder, content):
    return TrainedModel.open(model_folder(folder, content)).structures.values


def _cropped(folder, content):
    return require_liver(RawDataset.open(written(folder, content)), where="x").values


def _converted(folder, content):
    structures = RawDataset.open(written(folder, content)).structures
    changed = our_values(structures)
    ours = {v: changed.get(v, v) for v in structures.known - {0}}
    return {LIVER: [v for v in ours if ours[v] in (1, 2)], TUMOR: [v for v in ours if ours[v] == 2]}


def _trained(folder, content):
    """Of a training only the tumor's weights can be seen."""
    require_trainable(content)
    loss = weighted_ce(LabelManager(content["labels"], content.get("regions_class_order")), False, False)
    if isinstance(loss, WeightedCrossEntropy):
        return {TUMOR: [v for v, weight in enumerate(loss.weights.tolist()) if weight == pytest.approx(TUMOR_WEIGHT)]}
    regions = [value for name, value in content["labels"].items() if name not in ("background", "ignore")]
    return {TUMOR: [v for i in loss.tumor_regions for v in np.ravel(regions[i]).tolist()]}


CALLERS = (_evaluated, _checked, _segmented, _cropped, _converted, _trained)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("labels", "order", "liver", "tumor"), DICTIONARIES.values(), ids=DICTIONARIES)
def test_every_caller_takes_the_same_values_for_liver_and_tumor(tmp_path, caller, labels, order, liver, tumor):
    content = described(labels, order)
    assert [problem for _, problem in label_problems(content)] == []
    found = caller(tmp_path / "Dataset001_X", content)
    assert set(found[TUMOR]) == tumor
    assert LIVER not in found or set(found[LIVER]) == liver


REFUSED = {
    "tumor before liver": (
        {"tumor": [2], "liver": [1, 2]},
        [2, 1],
        r"writes the region liver \[1, 2\] as 1 over tumor, so every voxel of the label 2 becomes 1\.\n"
        r'.* larger regions first: liver, tumor; with "regions_class_order": \[1, 2\]',
    ),
    "order swapped": ({"liver": [1, 2], "tumor": 2}, [2, 1], "every voxel of the label 1 becomes 2"),
    "a tumor that is all liver": ({"tumor": [1, 2], "liver": 1}, [2, 1], "'tumor' has all values of the liver .1."),
    "no number": ({"liver": "one", "tumor": 2}, None, "label 'liver' has the value"),
    "a fraction": ({"liver": 1, "tumor": 2.5}, None, "label 'tumor' has the value 2.5"),
    "truth values": ({"liver": True, "tumor": 2}, None, "label 'liver' has the value"),
    "an empty list": ({"liver": 1, "tumor": []}, None, "label 'tumor' has the value"),
    "ignore as a list": ({"liver": 1, "tumor": 2, "ignore": []}, None, "label 'ignore' has the value"),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("labels", "order", "message"), REFUSED.values(), ids=REFUSED)
def test_every_caller_refuses_labels_without_a_meaning(tmp_path, caller, labels, order, message):
    content = described(labels, order)
    assert any(re.search(message, problem, re.DOTALL) for _, problem in label_problems(content))
    if caller is not _checked:  # whose findings are the problems
        with pytest.raises(UserError, match=f"(?s){message}"):
            caller(tmp_path / "Dataset001_X", content)
    else:
        assert set(caller(tmp_path / "Dataset001_X", content)[LIVER]) == set()


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = {
    TUMOR: (
        "tumor Tumour liver_tumor hepatic-tumours HCC tumor_1 LiverTumor livertumor tumor_liver metastasis"
        " liver_metastasis_colon pancreatic_liver_metastases viable_tumor non_enhancing_tumor tumor_necrosis"
        " tumor_without_necrosis hcc_and_metastasis primary_and_secondary_tumors lesion_seg"
    ),
    LIVER: (
        "liver Liver whole_liver liver_parenchyma liver_and_tumor LiverAndTumor liver_with_lesions liver&tumor"
        " liver_incl_lesions tumor-free_liver liver_without_tumor non-tumor-liver nontumor_liver liver_tumor_combined"
        " liver_mask liver_with_vessels_and_tumor"
    ),
    "": (
        "vessel liver_vessels hepatic_vein spleen liver_and_spleen kidney_tumor tumor_thrombus liver_cyst"
        " tumor_and_cyst no_tumor nodule portal_vein_tumor_thrombus lung_metastasis"
    ),
}


@pytest.mark.parametrize(("role", "name"), [(role, name) for role in NAMES for name in NAMES[role].split()])
def test_names(role, name):
    assert roles({"background": 0, name: 1}) == {name: role}


def test_an_unknown_name_and_several_kinds_of_tumor_stay_structures():
    found = structures_from_labels({"background": 0, "liver": 1, "hcc": 2, "metastasis": 3, "kidney": 4})
    assert found.values == {LIVER: (1, 2, 3), TUMOR: (2, 3), "hcc": (2,), "metastasis": (3,), "kidney": (4,)}
    assert found.healthy == (1,)


def test_liver_alone_tumor_alone_and_version_1():
    assert structures_from_labels({"background": 0, "liver": 1}).values == {LIVER: (1,)}
    assert structures_from_labels({"background": 0, "tumor": 1}).values == {TUMOR: (1,)}
    found = structures_from_labels({"0": "background", "1": "liver", "2": "cancer"})
    assert found.values == {LIVER: (1, 2), TUMOR: (2,)} and found.known == {0, 1, 2}


def test_the_ignore_label_is_no_structure():
    found = structures_from_labels({"background": 0, "liver": 1, "tumor": 2, "ignore": 3})
    assert found.ignore == 3 and found.known == {0, 1, 2} and "ignore" not in found.values


def test_values_that_a_person_names_keep_what_the_dataset_knows():
    base = declared({"background": 0, "organ_a": 1, "organ_b": 4})
    found = structures_from_values((1,), (4,), base=base)
    assert dict(found.values) == {LIVER: (1, 4), TUMOR: (4,)} and found.known == {0, 1, 4}
    with pytest.raises(UserError, match="has no label 2, only 0, 1, 4"):
        structures_from_values((1,), (2,), base=base)
    with pytest.raises(UserError, match="must be above 0"):
        structures_from_values((0,), (2,))
    with pytest.raises(UserError, match="none is left for the liver"):
        structures_from_values((1,), (1, 2))
    with pytest.raises(UserError, match="--liver 1 --tumor 2"):
        structures_from_values()


BOTH = {  # labels of predictions, of references, and the structures; None: they do not mean the same
    "the same": ({"liver": 1, "tumor": 2}, {"liver": [1, 2], "tumor": 2}, {LIVER: (1, 2), TUMOR: (2,)}),
    "liver alone": ({"liver": 1}, {"liver": 1, "tumor": 2}, {LIVER: (1, 2)}),
    "more kinds": ({"liver": 1, "tumor": 2}, {"liver": 1, "hcc": 2, "crlm": 3}, {LIVER: (1, 2, 3), TUMOR: (2, 3)}),
    "more organs": ({"liver": 1, "tumor": 2}, {"liver": 1, "tumor": 2, "spleen": 3}, {LIVER: (1, 2), TUMOR: (2,)}),
    "swapped": ({"liver": 1, "tumor": 2}, {"tumor": 1, "liver": 2}, None),
    "another organ": ({"liver": 1}, {"spleen": 1, "liver": 2}, None),
}


@pytest.mark.parametrize(("predicted", "reference", "expected"), BOTH.values(), ids=BOTH)
def test_predictions_and_references_with_labels_of_their_own(predicted, reference, expected):
    sides = [structures_from_labels({"background": 0, **labels}) for labels in (predicted, reference)]
    if expected is None:
        with pytest.raises(UserError, match=r"the label 1 is liver in dataset.json, but .*do not mean the same"):
            of_both(*sides)
    else:
        assert of_both(*sides).values == expected and of_both(*sides).known == sides[0].known | sides[1].known


# --- the order of regions ---------------------------------------------------------------------------------------------

ORDERS = {  # labels, order, whether nnU-Net's label map means what the network has found
    "nested": ({"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3], True),
    "two values that no region tells apart": ({"liver": [1, 2, 3], "tumor": [2, 3]}, [1, 3], True),
    "side by side": ({"tumor": [3], "liver": [1, 2]}, [3, 1], True),
    "middle last": ({"whole": [1, 2, 3], "enhancing": 3, "core": [2, 3]}, [1, 3, 2], False),
    "whole last": ({"core": [2, 3], "enhancing": 3, "whole": [1, 2, 3]}, [2, 3, 1], False),
    "overlapping": ({"a": [1, 2], "b": [2, 3]}, [1, 3], False),
}


@pytest.mark.parametrize(("labels", "order", "right"), ORDERS.values(), ids=ORDERS)
def test_the_order_of_regions_is_judged_by_what_nnunet_writes(labels, order, right):
    labels = {"background": 0, **labels}
    regions = [np.ravel(value).tolist() for name, value in labels.items() if name != "background"]
    truth = np.array(sorted({v for region in regions for v in region} | {0}))
    perfect = np.array([np.isin(truth, region) for region in regions], np.float32)
    label_map = LabelManager(labels, order).convert_probabilities_to_segmentation(perfect)
    same = all((np.isin(label_map, region) == np.isin(truth, region)).all() for region in regions)
    assert same == right
    assert (region_order_problem(labels, order) == "") == right


# --- voxels -----------------------------------------------------------------------------------------------------------


def test_labels_become_integers():
    whole, notes = as_integers(np.array([[0, 1.0], [2, 1]], np.float32), "x")
    assert (
        whole.dtype == np.int32 and whole.tolist() == [[0, 1], [2, 1]] and notes == ("x stores its labels as float32",)
    )
    assert as_integers(np.array([[0.99999, 2.0001]]), "x")[1] == ("label values rounded to whole numbers",)
    for wrong in (0.5, np.nan, np.inf, 1e10):
        with pytest.raises(UserError, match=r"x contains the value .* not a whole number"):
            as_integers(np.array([[1.0, wrong]]), "x")


def test_masks_that_were_saved_as_pictures_are_refused():
    named = structures_from_values((1,), (2,))
    for white in ([0, 255], [0, 128, 255]):
        with pytest.raises(UserError, match=r"(?s)255.* none that was named \(1, 2\).*picture.*--liver 255"):
            require_known(np.array([white]), named, "reference")
    assert require_known(np.array([[0, 1, 255]]), named, "reference") == [
        "labels of the reference that count as background: [255]"
    ]
    assert require_known(np.array([[0, 5, 9]]), named, "reference") != []  # many organs, none of them a liver
    assert require_known(np.array([[0, 255]]), structures_from_values((255,)), "reference") == []


def test_only_references_may_hold_the_ignore_label():
    structures = Structures({LIVER: (1,)}, frozenset({0, 1}), ignore=2, source="dataset.json")
    assert require_known(np.array([[0, 1, 2]]), structures, "reference", may_ignore=True) == []
    with pytest.raises(
        UserError, match=r"the prediction contains the labels \[2\], but dataset.json only knows \[0, 1\]"
    ):
        require_known(np.array([[0, 1, 2]]), structures, "prediction")
