"""``livseg two-stage predict``: a folder through a model that looks only at the liver, found by a model or before."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import as_image, rotated, write
from known_model import drawing, make_model

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.imaging.images import read_image
from nnunet_livseg.imaging.liver_crop import crop_image, find_liver_box, uncrop
from nnunet_livseg.inference.ct_input import read_ct
from nnunet_livseg.inference.folder_prediction import LiverFiles, predict_folder
from nnunet_livseg.inference.segmenter import NOTHING_SEGMENTED, WHOLE_SEGMENTED, Segmenter

FAST = {"device": "cpu", "quality": "fast"}
CUT = {"livseg": {"two_stage": {"mode": "crop", "margin_mm": 2.0}}}


def ct_with_a_spine():
    """A bright bone far from the liver, which a model alone takes for a tumor."""
    hu, labels = drawing()
    hu[0:12, 34:38, 40:46] = 300
    return as_image(hu, direction=rotated()), labels


@pytest.fixture
def place(tmp_path):
    """Two models, a folder with a CT and one without a liver, and one with predicted livers."""
    make_model(tmp_path / "first", outputs="liver")
    make_model(tmp_path / "second", dataset=CUT)
    image, labels = ct_with_a_spine()
    write(image, tmp_path / "in" / "a b_0000.nii.gz")
    write(as_image(np.where(drawing()[0] > 0, -100, drawing()[0])), tmp_path / "in" / "none_0000.nii.gz")
    for name, values in (("a b", labels), ("none", np.zeros_like(labels))):
        like = sitk.ReadImage(str(tmp_path / "in" / f"{name}_0000.nii.gz"))
        made = sitk.GetImageFromArray(values)
        made.CopyInformation(like)
        write(made, tmp_path / "livers" / f"{name}.nii.gz")
    return tmp_path


def model_in(place):
    return next(place.glob("Dataset*/*"))


def described(place, **changes):
    path = model_in(place) / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def predict(place, *, livers=None, **options):
    liver = LiverFiles(livers, model_in(place / "second")) if livers else model_in(place / "first")
    segmenter = Segmenter(model_in(place / "second"), liver_model=liver, **FAST, **options)
    return predict_folder(place / "in", place / "out", segmenter)


def array(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_results_lie_on_the_grid_of_their_images_and_a_ct_without_a_liver_is_background(place):
    assert predict(place) == {"a b": [], "none": [NOTHING_SEGMENTED]}
    result, image = (sitk.ReadImage(str(place / name)) for name in ("out/a b.nii.gz", "in/a b_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), drawing()[1])
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, geometry)() == pytest.approx(getattr(image, geometry)())
    assert array(place / "out/none.nii.gz").shape == (12, 40, 48) and not array(place / "out/none.nii.gz").any()
    assert len(list((place / "out").iterdir())) == 2


@pytest.mark.parametrize("mode", ["crop", "mask"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_both_stages_are_two_separate_predictions(tmp_path, mode, configuration):
    """On other spacing and axes, where everything is resampled, in two phases, with folds and mirroring."""
    plans = {"spacing_mm": (2.0, 1.0, 0.9), "transpose": (2, 0, 1), "configuration": configuration}
    two = plans | {"channels": ("CT", "CT"), "thresholds_hu": (110.0, 150.0)}
    first = make_model(tmp_path / "first", outputs="liver", **plans)
    plain = make_model(tmp_path / "plain", **two)
    second = make_model(tmp_path / "second", **two, dataset={"livseg": {"two_stage": {"mode": mode, "margin_mm": 4.0}}})
    image, _ = ct_with_a_spine()
    ct = read_ct((image, image))
    finder = Segmenter(first, device="cpu")
    found, notes = Segmenter(second, device="cpu", liver_model=finder).label_map(ct)
    liver = finder.label_map(read_ct(image))[0] > 0
    box = find_liver_box(liver, spacing_mm=image.GetSpacing()[::-1], margin_mm=4.0)
    cropped = tuple(crop_image(one, box, mode=mode, fill=-1024) for one in ct.images)
    alone, _ = Segmenter(plain, device="cpu").label_map(replace(ct, images=cropped))
    assert set(np.unique(alone)) == {0, 1, 2} and not notes
    np.testing.assert_array_equal(found, uncrop(alone, box, mode=mode, shape=found.shape))


def test_scales_are_the_second_models_own(place):
    segmenter = Segmenter(model_in(place / "second"), liver_model=model_in(place / "first"), scales=(0.5, 1), **FAST)
    assert segmenter.predictor.nnunet.scales == (0.5, 1)
    assert segmenter.liver_model.predictor.nnunet.scales == (1.0,)
    options = {"liver_model": model_in(place / "first"), "scales": (0.5, 1), **FAST}
    thorough = Segmenter(model_in(place / "first"), device="cpu", quality="best")
    for change in ({"crop": True}, {"scales": (1,)}, {"quality": "best"}, {"liver_model": thorough}):
        described(place / "second", livseg={})  # a finished result is another one
        other = Segmenter(model_in(place / "second"), **{**options, **change})
        assert json.dumps(other.settings()) != json.dumps(segmenter.settings())
    with pytest.raises(UserError, match="Omit the scales, or the uncertainty"):
        Segmenter(model_in(place / "second"), scales=(0.5, 1), uncertainty=True, **FAST)


@pytest.mark.parametrize("crop", [False, True])
def test_a_liver_that_is_not_found(place, crop):
    """Nothing, or, of a liver model that only crops, the whole CT as the model alone sees it."""
    described(place / "second", livseg={})
    hu, _ = drawing()
    image = as_image(np.where(hu == 60, -60, hu))  # tumors without a liver
    options = {"liver_model": make_model(place / "strict", outputs="liver", thresholds_hu=(0,)), **FAST}
    weights = next(options["liver_model"].glob("*/*.pth"))
    content = torch.load(weights, weights_only=False)
    content["network_weights"]["lines.bias"][0] = 100.0  # sees background everywhere
    torch.save(content, weights)
    result = Segmenter(model_in(place / "second"), crop=crop, **options).segment(image)
    assert (WHOLE_SEGMENTED if crop else NOTHING_SEGMENTED) in result.notes
    alone = Segmenter(model_in(place / "second"), **FAST).segment(image)
    expected = sitk.GetArrayFromImage(alone.labels) * crop
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result.labels), expected)
    assert sitk.GetArrayFromImage(alone.labels).any()


def test_a_model_that_only_crops_adds_nothing_of_its_own(tmp_path):
    liver, model = make_model(tmp_path / "liver", outputs="liver"), make_model(tmp_path / "tumor", outputs="tumor")
    result = Segmenter(model, liver_model=liver, crop=True, **FAST).segment(as_image(drawing()[0]))
    assert result.structures == {"tumor": (1,)}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result.labels), drawing()[1] == 2)
    described(tmp_path / "tumor", **CUT)
    with pytest.raises(UserError, match=r"cropped to the liver.*cannot read whole ones"):
        Segmenter(model, liver_model=liver, crop=True, **FAST)


def test_livers_that_were_segmented_before(place):
    """They have the labels of the dataset.json beside them, or else the model's."""
    assert predict(place, livers=place / "livers") == {"a b": [], "none": [NOTHING_SEGMENTED]}
    np.testing.assert_array_equal(array(place / "out/a b.nii.gz"), drawing()[1])
    other = json.loads((model_in(place / "second") / "dataset.json").read_text())
    (place / "livers/dataset.json").write_text(json.dumps(other | {"labels": {"background": 0, "bone": 1}}))
    with pytest.raises(UserError, match="no label is named liver"):
        predict(place, livers=place / "livers")


def test_livers_of_a_header_that_was_repaired_lie_where_nnunet_read_it(place):
    path = place / "in/a b_0000.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = (-np.frombuffer(raw[80:84], "<f4")).tobytes()
    path.write_bytes(gzip.compress(raw))
    assert read_image(path).notes
    predict(place, livers=place / "livers")
    np.testing.assert_array_equal(array(place / "out/a b.nii.gz"), drawing()[1])


def test_what_does_not_fit_is_refused_before_anything_is_written(place):
    shutil.copytree(place / "livers", place / "turned")
    path = place / "turned/a b.nii.gz"
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(path)), (True, False, False)), str(path))
    segmenter = Segmenter(model_in(place / "second"), liver_model=model_in(place / "first"), **FAST)
    refused = {
        r"there is no folder .*nowhere": lambda: predict_folder(place / "nowhere", place / "out", segmenter),
        r"contains no image named CASE_0000\.nii\.gz": lambda: predict_folder(
            place / "livers", place / "out", segmenter
        ),
        r"a b\.nii\.gz is not on the grid of its image": lambda: predict(place, livers=place / "turned"),
        r"there is no folder .* with predicted livers": lambda: predict(place, livers=place / "nowhere"),
    }
    for message, call in refused.items():
        with pytest.raises(UserError, match=message):
            call()
        assert not list(place.glob("out/*"))
    same = LiverFiles(place / "livers" / ".." / "livers", model_in(place / "second"))
    overwriting = Segmenter(model_in(place / "second"), liver_model=same, **FAST)
    with pytest.raises(UserError, match="would lie among the files of the input livers"):
        predict_folder(place / "in", place / "livers", overwriting)
    described(place / "first", channel_names={"0": "CT", "1": "CT"})
    with pytest.raises(UserError, match="needs 2 channels, the other model 1"):
        predict(place)
    described(place / "second", channel_names={"0": "CT", "1": "CT"})
    with pytest.raises(UserError, match=r"a b_0001\.nii\.gz is missing, but the model needs 2 channels"):
        predict(place)
    described(place / "first", labels={"background": 0, "tumor": 1})
    with pytest.raises(UserError, match="has no label named liver; it has tumor"):
        predict(place)


def test_the_command(place, capsys):
    folders = ["-i", place / "in", "-o", place / "out", "-m", model_in(place / "second"), "-device", "cpu"]
    call = ["two-stage", "predict", *map(str, folders)]
    liver = ["--liver-model", str(model_in(place / "first")), "--liver-folds", "0", "-f", "0"]
    assert main([*call, *liver, "--disable_tta", "--scales", "1"]) == 3
    assert "no liver found, so written as background: none" in capsys.readouterr().out
    np.testing.assert_array_equal(array(place / "out/a b.nii.gz"), drawing()[1])
    assert main(call) == 1
    assert "give either --liver-model or --livers" in capsys.readouterr().err
    for step_size in ("0", "-1", "2", "nan"):
        assert main([*call, "--livers", str(place / "livers"), "-step_size", step_size]) == 1
        assert "it is a share of the patch, above 0 and at most 1" in capsys.readouterr().err
