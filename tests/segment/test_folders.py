"""The folders that ``livseg segment`` writes: what is in them, many at a time, interrupted, repeated, refused."""

import json
import resource
import shutil
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from io_samples import as_image, dicom_slices, save_slices, write
from known_model import drawing

from nnunet_livseg import segment
from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.segment_jobs import segment_all
from nnunet_livseg.inference.segmenter import Segmenter
from nnunet_livseg.patient.segmentation import Lesion
from nnunet_livseg.postprocessing import SmallestLesion
from nnunet_livseg.postprocessing.steps import as_dict
from nnunet_livseg.postprocessing.steps_file import SCHEMA
from nnunet_livseg.report.result_folder import LABELS, LESION_TABLE, LESIONS, RECORD, SEG, SR, ResultFiles, write_result

FAST = ("--quality", "fast", "--no-crop", "-device", "cpu", "--no-report")
BARE = ResultFiles(report=False)


def livseg(*args):
    return main(["segment", *map(str, args)])


@pytest.fixture
def ct(tmp_path):
    return write(as_image(drawing()[0]), tmp_path / "patient_7.nii.gz")


def test_one_ct_with_everything(ct, model, tmp_path, capsys):
    assert livseg(ct, "-m", model, "-o", tmp_path / "out", *FAST, "--probabilities", "--uncertainty") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("segmentation.nii.gz", "lesions.nii.gz", "lesions.csv", "uncertainty.nii.gz", "measurements.json"),
        *("probability_liver.nii.gz", "probability_tumor.nii.gz"),
    }
    assert "liver 4.5 ml, tumor 0.3 ml, 2 lesions" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    _, labels = drawing()
    assert record["name"] == "patient_7"
    assert record["liver_ml"] == pytest.approx((labels > 0).sum() * 2.5 * 0.8 * 0.7 / 1000, abs=1e-4)
    assert record["tumor_burden"] == pytest.approx((labels == 2).sum() / (labels > 0).sum(), abs=1e-5)
    lesions = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "lesions.nii.gz"))
    for lesion in record["lesions"]:
        inside = np.argwhere(lesions == lesion["number"])
        assert lesion["center_voxel_zyx"] == pytest.approx(inside.mean(axis=0), abs=0.01)
        assert (labels[tuple(inside.T)] == 2).all()
    names = {field.name for field in fields(Lesion)} - {"box"}  # a new field of a lesion is not forgotten here
    assert record["lesions"][0].keys() - {"center_voxel_zyx", "longest_diameter"} == names - {"diameter"}


def test_maps_of_structures_that_would_share_a_file_name(ct, model, tmp_path):
    result = segment(ct, model, device="cpu", quality="fast", crop=False)
    names = ("vessel (portal)", "vessel [portal]", "Vessel portal")
    maps = {name: as_image(np.full(drawing()[0].shape, value, np.float32)) for value, name in enumerate(names)}
    write_result(replace(result, probabilities=maps), tmp_path / "out", files=BARE)
    files = ("vessel-portal", "vessel-portal-2", "Vessel-portal-3")
    for value, file in enumerate(files):
        assert sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"out/probability_{file}.nii.gz")).max() == value


def test_without_a_liver_all_maps_are_there_and_empty(model, tmp_path):
    hu, _ = drawing()
    ct = write(as_image(np.where(hu > 0, -100, hu)), tmp_path / "ct.nii.gz")
    options = ("--liver-model", model, "--probabilities", "--uncertainty", *WHOLE)
    assert livseg(ct, "-m", model, "-o", tmp_path / "out", *options) == 0
    for file in ("segmentation", "probability_liver", "probability_tumor", "uncertainty"):
        assert not sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"out/{file}.nii.gz")).any()
    assert "found no liver" in (tmp_path / "out" / "report.html").read_text()


def test_several_cts_each_in_its_folder_and_a_wrong_one_keeps_no_other_from_it(model, tmp_path, capsys):
    hu, _ = drawing()
    for place in ("a", "b"):
        write(as_image(hu), tmp_path / place / "ct.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"no gzip")
    inputs = [tmp_path / "a" / "ct.nii.gz", tmp_path / "broken.nii.gz", tmp_path / "b" / "ct.nii.gz"]
    assert livseg(*inputs, "-m", model, "-o", tmp_path / "out", *FAST) == 1
    told = capsys.readouterr()
    assert "1 of 3 inputs failed" in told.err and "broken.nii.gz" in told.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ct", "ct-2"}
    assert livseg(*inputs[::2], "-m", model, "-o", tmp_path / "out", *FAST) == 0
    assert capsys.readouterr().out.count("finished before") == 2


def test_a_repaired_input_takes_no_other_result_of_its_name(model, tmp_path, capsys):
    hu, labels = drawing()
    inputs = [tmp_path / place / "ct.nii.gz" for place in "abc"]
    for path in inputs[1:]:
        write(as_image(hu), path)
    inputs[0].parent.mkdir()
    inputs[0].write_bytes(b"damaged")
    call = (*inputs, "-m", model, "-o", tmp_path / "out", *FAST)
    assert livseg(*call) == 1
    write(as_image(np.where(hu > 0, -100, hu)), inputs[0])
    assert livseg(*call) == 0
    volumes = {p.parent.name: json.loads(p.read_text())["liver_ml"] for p in tmp_path.glob("out/*/measurements.json")}
    full = pytest.approx((labels > 0).sum() * 2.5 * 0.8 * 0.7 / 1000, abs=1e-4)
    assert volumes == {"ct": full, "ct-2": full, "ct-3": 0}


def test_a_later_call_takes_no_result_of_another_input(model, tmp_path, capsys):
    hu, _ = drawing()
    a, b = (write(as_image(hu), tmp_path / place / "ct.nii.gz") for place in "ab")
    z = write(as_image(hu), tmp_path / "z.nii.gz")
    call = ("-m", model, "-o", tmp_path / "out", *FAST)
    assert livseg(a, z, *call) == 0
    kept = (tmp_path / "out" / "ct" / RECORD).read_text()
    for options in ((), ("--overwrite",), ("--probabilities",)):  # b's own folder is replaced, every time
        assert livseg(b, z, *call, *options) == 0
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"ct", "ct-2", "z"}
        assert (tmp_path / "out" / "ct" / RECORD).read_text() == kept
    capsys.readouterr()
    assert livseg(a, a, *call) == 0 and capsys.readouterr().out.count("finished before") == 1
    record = json.loads(kept)
    record.pop("input")  # as records were before they had it
    (tmp_path / "out" / "ct" / RECORD).write_text(json.dumps(record))
    assert livseg(a, z, *call) == 0 and "ct: finished before" in capsys.readouterr().out
    assert livseg(a, z, *call, "--overwrite") == 0 and (tmp_path / "out" / "ct-3" / RECORD).exists()


def test_a_single_ct_never_replaces_the_result_of_another(ct, model, tmp_path, capsys, monkeypatch):
    """A loop over CTs with one output folder would keep the last one alone."""
    other = write(as_image(drawing()[0]), tmp_path / "b" / "ct.nii.gz")
    call = ("-m", model, "-o", tmp_path / "out", *FAST)
    assert livseg(ct, *call) == 0
    kept = (tmp_path / "out" / RECORD).read_text()
    assert livseg(other, *call) == 1 and "contains the result of another CT" in capsys.readouterr().err
    monkeypatch.chdir(other.parent)
    assert livseg(Path("..") / ct.name, *call) == 0  # the same file
    assert (tmp_path / "out" / RECORD).read_text() == kept
    assert livseg(other, *call, "--overwrite") == 0 and (tmp_path / "out" / RECORD).read_text() != kept


def test_a_single_series_never_replaces_another(model, tmp_path, capsys):
    hu, _ = drawing()
    for number in (3, 4):
        save_slices(dicom_slices(hu, series=number), tmp_path / "study")
    call = (tmp_path / "study", "-m", model, "-o", tmp_path / "out", *FAST, "--series")
    assert livseg(*call, 3) == 0 and livseg(*call, 3) == 0
    assert livseg(*call, 4) == 1 and "contains the result of another CT" in capsys.readouterr().err


def test_an_output_on_another_file_system_and_beside_other_peoples_files(ct, model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "notes.html").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert livseg(ct, "-m", model, "-o", tmp_path / "link", *FAST) == 0
    assert (tmp_path / "real" / RECORD).exists() and (tmp_path / "real" / "notes.html").read_text() == "mine"


def test_files_that_only_look_like_ours_are_never_replaced(ct, model, tmp_path, capsys):
    """A label map of the user's beside the CT, or a report of somebody else, was replaced without a word."""
    mine = [tmp_path / "out" / "segmentation.nii.gz", tmp_path / "many" / "patient_7" / "report.html"]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    call = ("-m", model, *FAST, "-o")
    assert livseg(ct, *call, tmp_path / "out") == 1
    assert "out contains segmentation.nii.gz that this command did not write" in capsys.readouterr().err
    with pytest.raises(UserError, match="did not write"):
        segment(ct, model, output=tmp_path / "out", quality="fast", crop=False, device="cpu")
    other = write(as_image(drawing()[0]), tmp_path / "other.nii.gz")
    assert livseg(ct, other, *call, tmp_path / "many") == 0
    assert {path.name for path in (tmp_path / "many").iterdir()} == {"patient_7", "patient_7-2", "other"}
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert livseg(ct, *call, tmp_path / "out", "--overwrite") == 0 and (tmp_path / "out" / RECORD).exists()


def test_a_result_never_replaces_its_input(model, tmp_path, study, capsys):
    named = write(as_image(drawing()[0]), tmp_path / "x" / "lesions.nii.gz")
    for given, out in ((named, named.parent), (study, study), (study, study / "out")):
        assert livseg(given, "-m", model, "-o", out, *FAST) == 1
        assert "would lie among the files of the input" in capsys.readouterr().err
    assert (sitk.GetArrayFromImage(sitk.ReadImage(named)) == drawing()[0]).all()


def test_one_ct_that_breaks_nnunet_keeps_no_other_from_being_segmented(model, tmp_path, capsys):
    hu, _ = drawing()
    loud = write(as_image(hu.astype(np.float32) * 1e6), tmp_path / "loud.nii.gz")  # overflows half precision
    good = write(as_image(hu), tmp_path / "good.nii.gz")
    assert livseg(loud, good, "-m", model, "-o", tmp_path / "out", *FAST) == 1
    assert "predicts infinite or undefined values for this CT" in capsys.readouterr().err
    assert (tmp_path / "out" / "good" / RECORD).exists()


class Fragile(Segmenter):
    """Fails on one CT as no reader and no network does."""

    def segment(self, given, **reading):
        if given.stem.startswith("strange"):
            raise ValueError("could not convert string to float: '1..5'")
        return super().segment(given, **reading)


def test_no_error_of_one_ct_keeps_others_from_being_segmented(model, tmp_path):
    strange, good = (write(as_image(drawing()[0]), tmp_path / f"{name}.nii.gz") for name in ("strange", "good"))
    with pytest.raises(
        UserError, match=r"(?s)1 of 2 inputs failed.*strange.nii.gz: a fault of this program .ValueError: could not"
    ):
        segment_all(
            [strange, good], Fragile(model, device="cpu", quality="fast", crop=False), tmp_path / "out", files=BARE
        )
    assert (tmp_path / "out" / "good" / RECORD).exists()


def test_a_result_is_kept_until_something_that_it_depends_on_changes(ct, model, tmp_path, capsys):
    out = tmp_path / "out"
    call = (ct, "-m", model, "-o", out, *FAST)
    assert livseg(*call, "--probabilities") == 0
    (out / "notes.txt").write_text("mine")
    assert livseg(*call, "--probabilities") == 0 and "finished before" in capsys.readouterr().out
    assert livseg(*call) == 0 and "finished before" not in capsys.readouterr().out  # fewer files are another result
    assert {path.name for path in out.iterdir()} == {LABELS, LESIONS, LESION_TABLE, RECORD, "notes.txt"}
    write(as_image(np.where(drawing()[0] > 0, -100, drawing()[0])), ct)
    assert livseg(*call) == 0 and "liver 0.0 ml" in capsys.readouterr().out
    before = (out / RECORD).stat().st_mtime_ns
    assert livseg(*call, "--overwrite") == 0 and (out / RECORD).stat().st_mtime_ns > before
    (model / "dataset.json").write_text((model / "dataset.json").read_text() + "\n")  # labels may have other names now
    assert livseg(*call) == 0 and "finished before" not in capsys.readouterr().out.splitlines()[-1]
    (out / "segmentation.nii.gz").unlink()
    assert livseg(*call) == 0 and (out / "segmentation.nii.gz").exists()


def test_an_interrupted_write_leaves_nothing(ct, model, tmp_path, monkeypatch):
    from nnunet_livseg.report import result_folder

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(result_folder, "write_json", stop)
    assert livseg(ct, "-m", model, "-o", tmp_path / "out" / "deep", *FAST) == 130
    assert not list((tmp_path / "out").rglob("*"))


def test_an_interrupted_replacement_leaves_nothing_of_either_result(ct, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert livseg(ct, "-m", model, "-o", out, *FAST, "--uncertainty") == 0
    (out / "notes.txt").write_text("mine")
    replace_file = Path.replace

    def stop(path, target):
        if target == out / "segmentation.nii.gz":
            raise KeyboardInterrupt
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    assert livseg(ct, "-m", model, "-o", out, *FAST) == 130
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_what_a_killed_call_left_is_cleared(ct, model, tmp_path):
    out, parts = tmp_path / "out", {LABELS, LESIONS, LESION_TABLE, RECORD}
    for moved in ((), ("uncertainty.nii.gz",)):  # killed while it made its files, and while it moved them
        assert livseg(ct, "-m", model, "-o", out, *FAST, "--uncertainty") == 0
        (out / ".incomplete-x1y2z3").mkdir()
        for name in parts - {RECORD, *moved} | ({RECORD} if moved else set()):
            (out / name).rename(out / ".incomplete-x1y2z3" / name)
        (out / "notes.txt").write_text("mine")
        assert livseg(ct, "-m", model, "-o", out, *FAST) == 0
        assert {path.name for path in out.iterdir()} == {*parts, "notes.txt"}


SECRETS = {"PatientName": "Mustermann^Erika", "PatientID": "Nummer-4711", "AccessionNumber": "Zugang-0815"}
WHOLE = ("--quality", "fast", "--no-crop", "-device", "cpu")


@pytest.fixture
def study(tmp_path):
    """A folder that is named after the patient, as many exports are."""
    slices = dicom_slices(drawing()[0], SeriesDescription="Leber Mustermann", FrameOfReferenceUID="1.2.9", **SECRETS)
    save_slices(slices, tmp_path / "Mustermann_Erika")
    return tmp_path / "Mustermann_Erika"


def everything_in(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_study_becomes_report_and_dicom_objects_that_name_nobody(study, model, tmp_path, capsys):
    archive = shutil.make_archive(str(study), "zip", study)
    unnamed = shutil.copy(archive, tmp_path / "download")  # a zip is known by its content
    for given in (study, archive, unnamed):
        assert livseg(given, "-m", model, "-o", tmp_path / "out", *WHOLE, "--overwrite") == 0
        said = capsys.readouterr()
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {LABELS, LESIONS, LESION_TABLE, RECORD, *("report.html", "preview.png"), SEG, SR}
        for secret in ("Mustermann", "Erika", "Nummer-4711", "Zugang-0815"):
            assert secret.encode() not in everything_in(tmp_path / "out")
            assert secret not in said.out + said.err
    seg = pydicom.dcmread(tmp_path / "out" / SEG)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "segmentation.nii.gz"))
    assert seg.pixel_array.sum() == (labels > 0).sum()


def test_a_note_why_there_is_no_dicom_object_names_nobody(model, tmp_path):
    slices = dicom_slices(drawing()[0])  # without FrameOfReferenceUID
    save_slices(slices, tmp_path / "study")
    for path in list((tmp_path / "study").iterdir()):
        path.rename(path.with_name(f"Mustermann_Erika_{path.name}"))
    assert livseg(tmp_path / "study", "-m", model, "-o", tmp_path / "out", *WHOLE) == 0
    notes = json.loads((tmp_path / "out" / RECORD).read_text())["notes"]
    assert any("FrameOfReferenceUID" in note for note in notes)
    assert b"Mustermann" not in everything_in(tmp_path / "out")


def test_identifiers_are_carried_on_request(study, model, tmp_path):
    assert livseg(study, "-m", model, "-o", tmp_path / "out", *WHOLE, "--identifiers") == 0
    for file in (RECORD, "report.html", SEG, SR):
        content = (tmp_path / "out" / file).read_bytes()
        assert all(secret.encode() in content for secret in SECRETS.values()), file


def test_an_interpolated_series_gets_everything_but_dicom_objects_and_a_note(model, tmp_path):
    slices = dicom_slices(drawing()[0], FrameOfReferenceUID="1.2.9")
    save_slices(slices[:5] + slices[6:], tmp_path / "study")
    assert (
        livseg(tmp_path / "study", "-m", model, "-o", tmp_path / "out", *WHOLE, "--interpolate", "--identifiers") == 0
    )
    assert not list((tmp_path / "out").glob("*.dcm")) and (tmp_path / "out" / "report.html").exists()
    notes = json.loads((tmp_path / "out" / RECORD).read_text())["notes"]
    assert any("no DICOM objects were written" in note and "interpolated" in note for note in notes)


def test_postprocessing_that_was_tuned(ct, model, tmp_path, capsys):
    call = (ct, "-m", model, "-o", tmp_path / "out", *FAST, "--postprocess")
    assert livseg(*call) == 1 and "livseg postprocess tune" in capsys.readouterr().err
    steps = [as_dict(SmallestLesion(140.0))]  # lesions are 126 mm3 each
    (model / "livseg_postprocessing.json").write_text(json.dumps({"schema": SCHEMA, "steps": steps}))
    assert livseg(*call) == 0 and "0 lesions" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert "smallest-lesion=140" in record["made_with"]["settings"]["post-processing"]
    assert any("smallest-lesion" in note for note in record["notes"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, where not even root can make a file")
def test_a_place_that_takes_no_files_is_refused_before_any_work(ct, model):
    segmenter, out = Segmenter(model, device="cpu"), Path("/proc/results/deep")
    with pytest.raises(UserError, match=r"(?s)no file can be made in /proc/results/deep.*Choose another folder"):
        segment_all([ct, ct.with_name("other.nii.gz")], segmenter, out)
    assert "predictor" not in vars(segmenter)  # not even loaded
    with pytest.raises(UserError, match="no file can be made"):
        segment("nothing.nii.gz", model, output=out, device="cpu")


def test_nothing_is_left_where_only_the_input_was_wrong(model, tmp_path):
    (tmp_path / "here").mkdir()
    assert livseg("nothing.nii.gz", "-m", model, "-o", tmp_path / "here" / "deep", *FAST) == 1
    assert not list((tmp_path / "here").iterdir())


def test_a_full_disk_leaves_no_result(ct, model, tmp_path, capsys):
    """A limit on file sizes is how a full disk looks to a writer; nothing may look finished."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        status = livseg(ct, "-m", model, "-o", tmp_path / "out", *FAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert status == 1 and "Nothing incomplete was kept" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".incomplete-*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.nii.gz", "-m", "MODEL", "-o", "out"], "nothing.nii.gz does not exist"),
        (
            ["CT", "-m", "RESULTS", "-o", "out"],
            "it has no plans.json. Models below it: Dataset301",
        ),
        (["CT", "-m", "MODEL", "-o", "CT"], "is a file"),
        (["CT", "-m", "MODEL", "-o", "out", "-step_size", "0"], "the step size is 0"),
        (["CT", "CT", "-m", "MODEL", "-o", "out", "--name", "x"], "--name names one result"),
        (["CT", "-m", "MODEL", "-o", "out", "--series", "3"], "one volume file, so there is no series '3'"),
        (["CT", "-m", "MODEL", "-o", "out", "--liver-model", "RESULTS"], "is not a model folder"),
    ],
)
def test_messages(args, message, ct, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"CT": ct, "MODEL": model, "RESULTS": model.parent.parent}
    assert livseg(*(places.get(arg, arg) for arg in args)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_over_the_whole_call_on_a_terminal_alone(terminal, ct, model, tmp_path, capsys, monkeypatch):
    """One bar for all CTs, with the stage that runs; the lines of results stay whole."""
    other = tmp_path / "other.nii.gz"
    shutil.copy(ct, other)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    livseg(ct, other, "-m", model, "-o", tmp_path / "out", *FAST)
    out, err = capsys.readouterr()
    assert out.count("liver ") == 2 and "%" not in out
    for shown in ("read:", "network:", "write:", "2/2"):
        assert (shown in err) is terminal, shown
    livseg(ct, "-m", model, "-o", tmp_path / "one", *FAST, "--quiet")
    assert "CT" not in capsys.readouterr().err
