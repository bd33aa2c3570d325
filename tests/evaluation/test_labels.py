"""What the labels of a dataset mean."""

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import dataset_structures, explicit_structures


def structures(**labels):
    return dict(dataset_structures({"labels": {"background": 0, **labels}}).values)


@pytest.mark.parametrize("name", ["tumor", "Tumour", "lesion", "cancer", "liver_tumor", "hepatic tumours", "HCC"])
def test_names_of_tumors_are_understood(name):
    assert structures(liver=1, **{name: 2}) == {"liver": (1, 2), "tumor": (2,)}


def test_regions_are_taken_as_they_are():
    assert structures(whole_liver=[1, 2], tumor=[2]) == {"liver": (1, 2), "tumor": (2,)}


def test_other_structures_stay_and_are_no_liver():
    found = structures(liver=1, liver_vessels=2, lesion=3, kidney=4)
    assert found == {"liver": (1, 3), "tumor": (3,), "liver_vessels": (2,), "kidney": (4,)}


def test_several_kinds_of_tumor_are_one_tumor_and_each_its_own():
    found = structures(liver=1, hcc=2, metastasis=3)
    assert found == {"liver": (1, 2, 3), "tumor": (2, 3), "hcc": (2,), "metastasis": (3,)}


def test_liver_alone_and_tumor_alone():
    assert structures(liver=1) == {"liver": (1,)}
    assert structures(tumor=1) == {"tumor": (1,)}


def test_the_ignore_label_is_no_structure():
    found = dataset_structures({"labels": {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}})
    assert found.ignore == 3
    assert found.known == {0, 1, 2}


def test_explicit_values_keep_what_the_dataset_knows():
    base = dataset_structures({"labels": {"background": 0, "organ_a": 1, "organ_b": 4}})
    found = explicit_structures((1,), (4,), base=base)
    assert dict(found.values) == {"liver": (1, 4), "tumor": (4,)}
    assert found.known == {0, 1, 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "no 'labels' section"), ({"labels": {"liver": "one"}}, "'liver' has the value 'one'")],
)
def test_a_useless_dataset_json_is_explained(content, message):
    with pytest.raises(UserError, match=message):
        dataset_structures(content)


def test_values_of_the_background_are_refused():
    with pytest.raises(UserError, match="must be above 0"):
        explicit_structures((0,), (2,))
    with pytest.raises(UserError, match="--liver 1 --tumor 2"):
        explicit_structures()
