"""One call for one patient: every form of input, every geometry, every sort of model, against a known answer."""

import json
import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import as_image, dicom_slices, rotated, save_slices
from known_model import TUMOR_HU, drawing, make_model
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.quality import Quality
from nnunet_livseg.inference.reader_axes import ReaderAxes
from nnunet_livseg.inference.segmenter import Segmenter

SPACING_MM = (2.5, 0.8, 0.7)
FLIPPED = np.diag([-1.0, 1.0, -1.0])
SIDEWAYS = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # x, y and z of the array lie along y, z and x of the patient


def labels_of(result):
    return sitk.GetArrayFromImage(result.labels)


def same_place(one, other):
    return one.GetSize() == other.GetSize() and np.allclose(
        [*one.GetOrigin(), *one.GetSpacing(), *one.GetDirection()],
        [*other.GetOrigin(), *other.GetSpacing(), *other.GetDirection()],
        atol=1e-5,
    )


def inputs(folder):
    """One CT in every form in which it may come."""
    hu, _ = drawing()
    image = as_image(hu)
    for name in ("ct_0000.nii.gz", "ct.nrrd", "ct.mha", "ct.nii"):
        sitk.WriteImage(image, str(folder / name))
        yield name, folder / name, {}
    yield "SimpleITK", image, {}
    yield "nibabel", nibabel.load(folder / "ct.nii"), {}
    yield "array", hu, {"spacing_mm": SPACING_MM}
    yield "float array", hu.astype(np.float64), {"spacing_mm": SPACING_MM}
    yield "big-endian array", hu.astype(">i2"), {"spacing_mm": SPACING_MM}
    save_slices(dicom_slices(hu), folder / "series")
    yield "DICOM folder", folder / "series", {}
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        for path in (folder / "series").iterdir():
            archive.write(path, f"study/{path.name}")
    yield "DICOM zip", folder / "study.zip", {}


def test_every_form_of_input_gives_the_same_label_map(model, tmp_path):
    _, labels = drawing()
    for form, given, options in inputs(tmp_path):
        result = segment(given, model, device="cpu", quality="fast", crop=False, **options)
        assert np.array_equal(labels_of(result), labels), form
        assert (result.series is not None) == form.startswith("DICOM")
        assert result.measurements.liver_ml == pytest.approx((labels > 0).sum() * np.prod(SPACING_MM) / 1000), form
        assert len(result.measurements.lesions) == 2


READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")
DIRECTIONS = {"straight": np.eye(3), "flipped": FLIPPED, "sideways": SIDEWAYS, "oblique": rotated()}
in_every_direction = pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)


@pytest.mark.parametrize("reader", READERS)
@in_every_direction
def test_the_model_sees_what_its_reader_would_read(tmp_path, reader, direction):
    """The array that nnU-Net's own reader makes of the file, and the way back."""
    hu, _ = drawing()
    sitk.WriteImage(as_image(hu, direction=direction), str(tmp_path / "ct.nii.gz"))
    read, properties = recursive_find_reader_writer_by_name(reader)().read_images([str(tmp_path / "ct.nii.gz")])
    axes = ReaderAxes(sitk.ReadImage(tmp_path / "ct.nii.gz"), reader)
    assert np.array_equal(axes.to_reader(hu), read[0])
    assert axes.spacing_mm == pytest.approx(properties["spacing"])
    assert np.array_equal(axes.from_reader(axes.to_reader(hu)), hu)


@pytest.mark.parametrize("reader", READERS)
@in_every_direction
def test_the_result_overlays_the_input_however_it_lies(tmp_path, reader, direction):
    """In SimpleITK and nibabel alike, and inside: the label map is the drawing, voxel for voxel."""
    hu, labels = drawing()
    image = as_image(hu, direction=direction)
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    model = make_model(tmp_path / "results", reader=reader, spacing_mm=SPACING_MM)
    if reader.endswith("Reorient") and direction is SIDEWAYS:
        model = make_model(tmp_path / "turned", reader=reader, spacing_mm=(0.8, 0.7, 2.5))
    result = segment(tmp_path / "ct.nii.gz", model, device="cpu", quality="fast", crop=False, output=tmp_path / "out")
    assert np.array_equal(labels_of(result), labels)
    written = sitk.ReadImage(tmp_path / "out" / "segmentation.nii.gz")
    assert same_place(written, sitk.ReadImage(tmp_path / "ct.nii.gz"))
    by_nibabel, ct = nibabel.load(tmp_path / "out" / "segmentation.nii.gz"), nibabel.load(tmp_path / "ct.nii.gz")
    assert np.allclose(by_nibabel.affine, ct.affine, atol=1e-4)
    assert np.array_equal(np.asarray(by_nibabel.dataobj) == 2, np.asarray(ct.dataobj) == 200)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("outputs", ["labels", "regions"])
def test_other_spacing_and_axis_order_of_the_plans(tmp_path, configuration, outputs):
    """Resampled there and back: only voxels at the rims may differ."""
    hu, labels = drawing()
    options = {"spacing_mm": (2.0, 1.0, 0.9), "transpose": (2, 0, 1), "outputs": outputs}
    model = make_model(tmp_path, configuration=configuration, **options)
    found = labels_of(segment(as_image(hu), model, device="cpu", quality="fast", crop=False))
    wrong = found != labels
    assert wrong.mean() < 0.06
    inside = sitk.GetArrayFromImage(sitk.BinaryErode(as_image((labels == 1).astype(np.uint8)), (2, 2, 2)))
    assert not wrong[inside > 0].any()
    assert 2 * ((found == 2) & (labels == 2)).sum() > 0.7 * ((found == 2).sum() + (labels == 2).sum())


def test_folds_that_disagree_are_uncertain(tmp_path):
    """A lesion of 160 HU: one fold says tumor from 130 HU on, the other from 180 on; the mean of both says yes."""
    hu, labels = drawing()
    hu[7:9, 20:25, 15:24] = 160
    model = make_model(tmp_path, thresholds_hu=(130.0, 180.0))
    result = segment(as_image(hu), model, device="cpu", probabilities=True, uncertainty=True)
    assert np.array_equal(labels_of(result), labels)
    clear, disputed = result.measurements.lesions  # of equal size
    assert (disputed.agreement, clear.agreement) == pytest.approx((0.5, 1.0), abs=0.01)
    assert disputed.confidence < clear.confidence
    uncertainty = sitk.GetArrayFromImage(result.uncertainty)
    assert uncertainty[labels == 0].max() < uncertainty[hu == 160].min() <= 1
    # probabilities are those of the mean logits, as nnU-Net's: 1, HU / 50 and (2 HU - 155) / 50
    logits = np.array([0, 160, 2 * 160 - 155]) / 50
    expected = np.exp(logits[2]) / np.exp(logits).sum()
    tumor, liver = (sitk.GetArrayFromImage(result.probabilities[name]) for name in ("tumor", "liver"))
    assert tumor[8, 22, 20] == pytest.approx(expected, abs=0.01)
    assert liver[8, 22, 20] == pytest.approx(1 - 1 / np.exp(logits).sum(), abs=0.01)


@pytest.mark.parametrize("outputs", ["labels", "regions"])
def test_one_prediction_agrees_with_itself(tmp_path, outputs):
    """On another spacing, where interpolated votes of a small lesion are fractions."""
    hu, labels = drawing()
    hu[labels == 2] = 60
    hu[5:7, 12:15, 10:13] = 200
    model = make_model(tmp_path, spacing_mm=(5.0, 1.6, 1.5), outputs=outputs)
    result = segment(as_image(hu), model, device="cpu", quality=Quality("one", False, False, 1.0), uncertainty=True)
    assert [lesion.agreement for lesion in result.measurements.lesions] == pytest.approx([1.0], abs=0.02)


def test_the_first_of_two_phases_is_the_first_channel(tmp_path):
    hu, labels = drawing()
    model = make_model(tmp_path, channels=("CT", "CT"))
    result = segment((as_image(hu), as_image(-hu)), model, device="cpu", quality="fast", crop=False)
    assert np.array_equal(labels_of(result), labels)
    hole = as_image(np.where(hu == 60, np.nan, hu).astype(np.float32))
    with pytest.raises(UserError, match="NaN or infinite"):
        segment((as_image(hu), hole), model, device="cpu")


@pytest.mark.parametrize("folds", [0, "0", [0], (0, "0"), (0, 1), None])
def test_folds_in_every_form(tmp_path, folds):
    model = make_model(tmp_path, thresholds_hu=(TUMOR_HU, TUMOR_HU + 1))
    (model / "fold_0_old").mkdir()
    (model / "fold_0_old" / "checkpoint_final.pth").touch()
    expected = ("0", "1") if folds in ((0, 1), None) else ("0",)
    assert Segmenter(model, device="cpu", folds=folds).predictor.folds == expected


def test_a_region_of_liver_and_tumor_is_the_liver(tmp_path):
    labels = {"background": 0, "liver_and_tumor": [1, 2], "tumor": 2}
    ct, found = as_image(drawing()[0]), []
    for name, more in (("named", {"labels": labels}), ("usual", {})):
        model = make_model(tmp_path / name, outputs="regions", dataset=more)
        found.append(segment(ct, model, device="cpu", quality="fast", crop=False))
    assert found[0].structures == found[1].structures
    assert found[0].measurements.liver_ml == found[1].measurements.liver_ml > found[0].measurements.tumor_ml > 0


def test_a_model_that_writes_liver_over_tumor_is_refused(tmp_path):
    labels = {"background": 0, "tumor": [2], "liver": [1, 2]}
    model = make_model(tmp_path, outputs="regions", dataset={"labels": labels})
    content = json.loads((model / "dataset.json").read_text()) | {"regions_class_order": [2, 1]}
    (model / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"as 1 over tumor, so every voxel of the label 2 becomes 1(.|\n)*train again"):
        Segmenter(model, device="cpu")


def test_a_copied_fold_is_named(tmp_path):
    model = make_model(tmp_path)
    (model / "fold_0").rename(model / "fold_0_old")
    with pytest.raises(UserError, match="fold_0_old has it, but is not the name of a fold"):
        Segmenter(model, device="cpu")


def test_without_wishes_there_is_confidence_but_no_maps(model):
    hu, _ = drawing()
    result = segment(as_image(hu), model, device="cpu", quality="fast", crop=False)
    assert not result.probabilities and result.uncertainty is None
    lesion = result.measurements.lesions[0]
    assert 0.5 < lesion.confidence < 1 and lesion.agreement is None


def test_two_phases_are_two_channels_of_one_ct(tmp_path):
    hu, labels = drawing()
    model = make_model(tmp_path, channels=("CT", "CT"))
    result = segment((as_image(hu), as_image(hu)), model, device="cpu", quality="fast", crop=False)
    assert np.array_equal(labels_of(result), labels)
    with pytest.raises(UserError, match=r"has 1 channel\(s\).*trained on 2 \(CT, CT\)"):
        segment(as_image(hu), model, device="cpu")
    with pytest.raises(UserError, match=r"(?s)channel 1 is on another grid.*from -17, -23, -110 mm.*livseg align"):
        segment((as_image(hu), as_image(hu, origin_mm=(0, 0, 0))), model, device="cpu")


@pytest.mark.parametrize("mode", ["crop", "mask"])
def test_the_liver_first_keeps_the_other_model_from_looking_elsewhere(tmp_path, mode):
    """A bright bone far from the liver is a tumor for the model alone, and is not seen with the liver model."""
    hu, labels = drawing()
    hu[0:12, 34:38, 40:46] = 300
    cut = {"livseg": {"two_stage": {"mode": mode, "margin_mm": 2.0}}}
    liver = make_model(tmp_path / "liver", outputs="liver")
    hu[0:12, 34:38, 40:46] = 300  # the smaller of two parts: find_liver_box takes the largest
    model = make_model(tmp_path / "tumor", outputs="labels", dataset=cut)
    result = segment(as_image(hu), model, device="cpu", quality="fast", liver_model=liver)
    assert np.array_equal(labels_of(result), labels)
    assert mode in result.provenance.settings["liver first"]
    with pytest.raises(UserError, match=r"(?s)cropped to the liver.*--liver-model"):
        segment(as_image(hu), model, device="cpu")


def test_a_tumor_model_gets_the_liver_from_the_liver_model(tmp_path):
    hu, labels = drawing()
    liver, model = make_model(tmp_path / "liver", outputs="liver"), make_model(tmp_path / "tumor", outputs="tumor")
    result = segment(as_image(hu), model, device="cpu", quality="fast", liver_model=liver)
    assert np.array_equal(labels_of(result), np.array([0, 2, 1])[labels])
    assert result.structures == {"liver": (2, 1), "tumor": (1,)}  # the model's value stays
    nothing = np.where(hu > 0, -100, hu)
    result = segment(as_image(nothing), model, device="cpu", quality="fast", liver_model=liver)
    assert not labels_of(result).any() and "found no liver" in result.notes[0]
    assert result.measurements.liver_ml == 0
    whole = segment(as_image(nothing), make_model(tmp_path / "whole"), device="cpu", quality="fast", crop=False)
    assert whole.notes[-1] == "no liver was found: is this a CT of the abdomen?"


def test_a_cascade_runs_its_first_stage_itself(tmp_path):
    hu, labels = drawing()
    make_model(tmp_path, configuration="3d_lowres")
    model = make_model(tmp_path, configuration="3d_cascade_fullres", previous="3d_lowres")
    result = segment(as_image(hu), model, device="cpu", quality="fast", crop=False)
    assert np.array_equal(labels_of(result), labels)
    alone = make_model(tmp_path / "alone", configuration="3d_cascade_fullres", previous="3d_lowres")
    with pytest.raises(UserError, match=r"(?s)second model of nnU-Net's cascade.*3d_lowres is not beside it"):
        segment(as_image(hu), alone, device="cpu")


@pytest.mark.parametrize(("folds", "used"), [([1], "1"), ([0, 2], "0"), ([2], "0, 1"), (None, "0, 1")])
def test_a_cascades_first_stage_takes_the_folds_that_were_asked_for(tmp_path, folds, used):
    lowres = make_model(tmp_path, configuration="3d_lowres", thresholds_hu=(TUMOR_HU, TUMOR_HU + 1))
    cascade = {"configuration": "3d_cascade_fullres", "previous": "3d_lowres"}
    model = make_model(tmp_path, **cascade, thresholds_hu=(TUMOR_HU, TUMOR_HU, TUMOR_HU))
    quality = Quality("one", True, False, 1.0)
    result = segment(as_image(drawing()[0]), model, device="cpu", quality=quality, folds=folds)
    assert result.provenance.settings["previous stage"] == f"Dataset301_Known/{lowres.name}, folds {used}"


def test_results_depend_on_the_weights_of_every_model(tmp_path):
    places = {"liver_model": tmp_path / "liver", "model": tmp_path / "tumor"}
    expected = [make_model(place, configuration="3d_lowres") for place in places.values()]
    cascade = {"configuration": "3d_cascade_fullres", "previous": "3d_lowres"}
    models = {key: make_model(place, **cascade) for key, place in places.items()}
    weights = Segmenter(**models, device="cpu").weights()
    assert {model / "fold_0" / "checkpoint_final.pth" for model in (*models.values(), *expected)} < set(weights)


def test_presets(tmp_path):
    model = make_model(tmp_path, thresholds_hu=(TUMOR_HU, TUMOR_HU + 1))
    made = {name: Segmenter(model, device="cpu", quality=name) for name in ("fast", "standard", "best")}
    assert [len(one.predictor.folds) for one in made.values()] == [1, 2, 2]
    assert [one.predictor.nnunet.use_mirroring for one in made.values()] == [False, True, True]
    steps = [one.predictor.nnunet.tile_step_size for one in made.values()]
    assert steps[0] > steps[1] == 0.5 > steps[2]
    assert len(Segmenter(model, device="cpu", quality="fast", crop=False, folds=[0, 1]).predictor.folds) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "bst"}, r"no quality 'bst'. Did you mean best"),
        ({"device": "cuda:7"}, r"there is no device cuda:7 here"),
        ({"folds": [7]}, r"no checkpoint_final.pth of fold 7; trained: fold_0"),
        (
            {"checkpoint": "checkpoint_best.pth"},
            r"no fold with checkpoint_best.pth.*It has checkpoint_final.pth.*-chk",
        ),
    ],
)
def test_wrong_wishes_are_explained(model, options, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        segment(as_image(drawing()[0]), model, **{"device": "cpu", **options})


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (np.zeros((4, 5)), {}, r"shape \(4, 5\)"),
        (drawing()[0], {}, r"an array has no voxel size"),
        (drawing()[0], {"spacing_mm": (1, 0, 1)}, r"spacing_mm is \(1, 0, 1\)"),
        (np.clip(drawing()[0], 0, 255), {"spacing_mm": SPACING_MM}, r"windowed gray picture"),
        (sitk.Image(8, 8, sitk.sitkInt16), {}, r"a CT is a volume of several slices"),
        ({"ct": 1}, {}, r"cannot read a CT from an object of type dict"),
        ((), {}, r"no image was given"),
    ],
)
def test_wrong_inputs_are_explained(model, given, options, message):
    with pytest.raises(UserError, match=message):
        segment(given, model, device="cpu", **options)


def test_an_option_that_is_none_is_refused(model):
    for call in (segment, Segmenter(model, device="cpu").segment):
        with pytest.raises(UserError, match=r"segment\(\) has no argument 'serie'. Did you mean series"):
            call(as_image(drawing()[0]), *([model] if call is segment else []), serie=3)
    with pytest.raises(UserError, match=r"Segmenter\(\) has no argument 'qualty'. Did you mean quality"):
        Segmenter(model, qualty="fast")


def test_a_model_of_an_extension_that_is_not_here(model):
    import torch

    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save(content | {"trainer_name": "SomebodysTrainer"}, path)
    with pytest.raises(UserError, match=r"(?s)cannot be loaded.*SomebodysTrainer.*livseg doctor"):
        segment(as_image(drawing()[0]), model, device="cpu")


def test_a_network_class_that_is_not_here(model):
    plans = json.loads((model / "plans.json").read_text())
    for name, one in plans["configurations"].items():
        one["architecture"]["network_class_name"] = f"mednext.create.MedNeXt_{name}"
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match=r"(?s)cannot be loaded: its network, mednext.create.MedNeXt.*livseg doctor"):
        segment(as_image(drawing()[0]), model, device="cpu")


@pytest.mark.parametrize("uncertainty", [False, True])
@pytest.mark.parametrize("bias", [1e6, np.nan])  # 1e6 is infinite in half precision
def test_a_network_whose_answer_is_not_finite(tmp_path, bias, uncertainty):
    model = make_model(tmp_path)
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["network_weights"]["lines.bias"][1] = bias
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="predicts infinite or undefined values for this CT"):
        segment(as_image(drawing()[0]), model, device="cpu", quality="fast", crop=False, uncertainty=uncertainty)


def test_an_image_of_which_resampling_would_leave_nothing(tmp_path):
    model = make_model(tmp_path, spacing_mm=(12.0, 0.8, 0.7))
    with pytest.raises(UserError, match=r"the image is 5 mm thick, less than half a voxel \(12 mm\) of nnUNetTrainer"):
        segment(as_image(drawing()[0][:2]), model, device="cpu", quality="fast", crop=False)


@pytest.mark.parametrize(
    ("thresholds", "quality", "says"), [((TUMOR_HU,), "fast", True), ((TUMOR_HU, 0), "best", False)]
)
def test_agreement_of_a_single_prediction_is_no_news(tmp_path, thresholds, quality, says):
    model = make_model(tmp_path, thresholds_hu=thresholds)
    result = segment(as_image(drawing()[0]), model, device="cpu", quality=quality, uncertainty=True)
    assert any("agreement says little" in note for note in result.notes) is says
