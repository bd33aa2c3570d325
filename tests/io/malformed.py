"""Malformed inputs: each is made, given to the command line, and its outcome recorded.

``docs/reference/inputs.md`` is the printed form of what really happened; ``test_inputs.py`` compares the two.
    python tests/io/malformed.py --write    writes the page anew
"""

import contextlib
import gzip
import io
import json
import re
import shutil
import struct
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path += [str(Path(__file__).parents[1] / part) for part in ("io", "segment", "report")]  # the samples of each
from io_samples import as_image, compress_files, ct_array, dicom_slices, enhanced, label_array, save_slices, write

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/inputs.md"


@dataclass(frozen=True)
class Malformed:
    """One malformed input.

    Args:
        name: What is wrong, for the page.
        make: Writes the input into a folder and returns the command line after ``livseg``.
        works: Whether a correct result is expected, not a refusal.
    """

    name: str
    make: Callable[[Path], list]
    works: bool = False


LIST: list[Malformed] = []


def malformed(name: str, *, works: bool = False):
    def register(make: Callable[[Path], list]) -> Callable[[Path], list]:
        LIST.append(Malformed(name, make, works))
        return make

    return register


def lits(folder: Path) -> Path:
    """Two sound cases; a second call leaves them as they are."""
    for n in [] if (folder / "lits").is_dir() else range(2):
        write(ct_array(), folder / f"lits/volume-{n}.nii.gz")
        write(label_array(), folder / f"lits/segmentation-{n}.nii.gz")
    return folder / "lits"


def to_dataset(kind: str, source: Path, folder: Path, *options: object) -> list:
    return ["convert", kind, source, "--id", 3, "--cv-folds", 2, "--workers", 1, "--out", folder / "raw", *options]


def to_volume(folder: Path, *options: object) -> list:
    return ["dicom", "convert", folder / "study", "-o", folder / "out.nii.gz", *options]


def study(folder: Path, change: Callable = lambda slices: None, **options: object) -> list:
    slices = dicom_slices(ct_array(), **options)
    slices = change(slices) or slices
    save_slices(slices, folder / "study")
    return to_volume(folder)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def set_slice_distance(path: Path, size_mm: float) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[88:92] = struct.pack("<f", size_mm)  # pixdim[3]
    path.write_bytes(gzip.compress(bytes(raw)))


def set_all(slices: list, **tags: object) -> None:
    for one in slices:
        for keyword, value in tags.items():
            setattr(one, keyword, value)


def color_picture() -> sitk.Image:
    return sitk.Compose(*[sitk.Image(8, 8, sitk.sitkUInt8)] * 3)


def drop_all(slices: list, *keywords: str) -> None:
    for one in slices:
        for keyword in keywords:
            delattr(one, keyword)


# --- livseg convert


@malformed("LiTS: truncated volume (ITK reads it without an error)")
def _(folder):
    cut(lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: empty file")
def _(folder):
    (lits(folder) / "segmentation-1.nii.gz").write_bytes(b"")
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: a text file named volume-1.nii.gz")
def _(folder):
    (lits(folder) / "volume-1.nii.gz").write_text("<html>404 not found</html>")
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: volume without segmentation")
def _(folder):
    (lits(folder) / "segmentation-1.nii.gz").unlink()
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: the same number twice")
def _(folder):
    write(ct_array(), lits(folder) / "batch2/volume-1.nii")
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: empty folder")
def _(folder):
    (folder / "lits").mkdir()
    return to_dataset("lits", folder / "lits", folder)


@malformed("LiTS: source folder does not exist")
def _(folder):
    return to_dataset("lits", folder / "nowhere", folder)


@malformed("LiTS: a zip instead of a folder")
def _(folder):
    shutil.make_archive(str(folder / "batch1"), "zip", lits(folder))
    return to_dataset("lits", folder / "batch1.zip", folder)


@malformed("Image is 4D (several phases in one file)")
def _(folder):
    image = as_image(ct_array())
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(lits(folder) / "volume-1.nii.gz"))
    return to_dataset("lits", folder / "lits", folder)


@malformed("Image is one 2D slice")
def _(folder):
    sitk.WriteImage(as_image(ct_array())[:, :, 3], str(lits(folder) / "volume-1.nii.gz"))
    return to_dataset("lits", folder / "lits", folder)


@malformed("Image has three values per voxel (color)")
def _(folder):
    image = sitk.Cast(as_image(ct_array()), sitk.sitkInt16)
    sitk.WriteImage(sitk.Compose(image, image, image), str(lits(folder) / "volume-1.nii.gz"))
    return to_dataset("lits", folder / "lits", folder)


@malformed("Negative voxel size in the header", works=True)
def _(folder):
    for name in ("volume-1.nii.gz", "segmentation-1.nii.gz"):
        set_slice_distance(lits(folder) / name, -2.5)
    return to_dataset("lits", folder / "lits", folder)


@malformed("Voxel size 0 in the header")
def _(folder):
    set_slice_distance(lits(folder) / "volume-1.nii.gz", 0.0)
    return to_dataset("lits", folder / "lits", folder)


@malformed("Sheared axes")
def _(folder):
    import nibabel

    affine = np.diag([-0.7, -0.8, 2.5, 1])
    affine[1, 2] = 0.7
    skewed = nibabel.Nifti1Image(ct_array().T, None)
    skewed.header.set_sform(affine, 1)
    nibabel.save(skewed, lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Label of another size than its image")
def _(folder):
    write(label_array((12, 40, 40)), lits(folder) / "segmentation-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Label stored with other axis directions", works=True)
def _(folder):
    write(sitk.DICOMOrient(as_image(label_array()), "RAS"), lits(folder) / "segmentation-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Image header mirrored, arrays correspond", works=True)
def _(folder):
    write(as_image(ct_array(), direction=np.diag([-1, -1, 1])), lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Label with an unknown value")
def _(folder):
    label = label_array()
    label[0, 0, :7] = 5
    write(label, lits(folder) / "segmentation-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Label interpolated (values between whole numbers)")
def _(folder):
    write(label_array() * np.float32(0.7), lits(folder) / "segmentation-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("HU stored unsigned, intercept lost")
def _(folder):
    write((ct_array().astype(int) + 1024).astype(np.uint16), lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("NaN in the image (ITK turns it into 0 HU)")
def _(folder):
    write(np.where(ct_array() > 400, np.nan, ct_array()).astype(np.float32), lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Windowed 8-bit image")
def _(folder):
    write(np.clip(ct_array(), 0, 255).astype(np.uint8), lits(folder) / "volume-1.nii.gz")
    return to_dataset("lits", folder / "lits", folder)


@malformed("Folder of color PNGs")
def _(folder):
    (folder / "own/labels").mkdir(parents=True)
    write(color_picture(), folder / "own/images/a.png")
    return to_dataset("folder", folder / "own", folder)


@malformed("Table that names a color PNG")
def _(folder):
    write(color_picture(), folder / "a.png")
    write(label_array(), folder / "b.nii.gz")
    (folder / "t.csv").write_text("image,label,case\na.png,b.nii.gz,one\na.png,b.nii.gz,two\n")
    return to_dataset("folder", folder / "t.csv", folder)


@malformed("Table without a label column")
def _(folder):
    (folder / "t.csv").write_text("image,mask\na.nii.gz,b.nii.gz\n")
    return to_dataset("folder", folder / "t.csv", folder)


@malformed("Table that names a missing file")
def _(folder):
    (folder / "t.csv").write_text("image,label\na.nii.gz,b.nii.gz\n")
    return to_dataset("folder", folder / "t.csv", folder)


@malformed("MSD: dataset.json is no JSON")
def _(folder):
    (folder / "Task03_Liver").mkdir()
    (folder / "Task03_Liver/dataset.json").write_text("{")
    return to_dataset("msd", folder / "Task03_Liver", folder)


@malformed("MSD: another task")
def _(folder):
    (folder / "Task09_Spleen").mkdir()
    content = {"training": [{"image": "i", "label": "l"}], "labels": {"0": "background", "1": "spleen"}}
    for name in "il":
        (folder / "Task09_Spleen" / name).write_text("")
    (folder / "Task09_Spleen/dataset.json").write_text(json.dumps(content))
    return to_dataset("msd", folder / "Task09_Spleen", folder)


@malformed("MSD: dataset.json lists a file outside its folder")
def _(folder):
    (folder / "Task03_Liver").mkdir()
    content = {"training": [{"image": "../secret.nii.gz", "label": "l"}], "labels": {"0": "background", "1": "liver"}}
    (folder / "Task03_Liver/dataset.json").write_text(json.dumps(content))
    return to_dataset("msd", folder / "Task03_Liver", folder)


@malformed("3D-IRCADb: MASKS_DICOM.zip is damaged")
def _(folder):
    patient = folder / "ircad/3Dircadb1.1"
    for name in ("3Dircadb1.1", "3Dircadb1.2"):
        save_slices(dicom_slices(ct_array()), folder / "ircad" / name / "PATIENT_DICOM")
        save_slices(dicom_slices((label_array() > 0) * 255, intercept=0), folder / "ircad" / name / "MASKS_DICOM/liver")
    shutil.make_archive(str(patient / "MASKS_DICOM"), "zip", patient / "MASKS_DICOM")
    shutil.rmtree(patient / "MASKS_DICOM")
    cut(patient / "MASKS_DICOM.zip")
    return to_dataset("ircadb", folder / "ircad", folder)


@malformed("3D-IRCADb: no liver mask")
def _(folder):
    for name in ("3Dircadb1.1", "3Dircadb1.2"):
        save_slices(dicom_slices(ct_array()), folder / "ircad" / name / "PATIENT_DICOM")
        save_slices(dicom_slices((label_array() > 0) * 255, intercept=0), folder / "ircad" / name / "MASKS_DICOM/bone")
    return to_dataset("ircadb", folder / "ircad", folder)


@malformed("Raw folder: the number belongs to another dataset")
def _(folder):
    (folder / "raw/Dataset003_Heart").mkdir(parents=True)
    return to_dataset("lits", lits(folder), folder)


@malformed("Output: a file is where the raw folder should be")
def _(folder):
    (folder / "raw").write_text("")
    return to_dataset("lits", lits(folder), folder)


# --- livseg dicom


@malformed("DICOM: empty folder")
def _(folder):
    (folder / "study").mkdir()
    return to_volume(folder)


@malformed("DICOM: folder without any DICOM file")
def _(folder):
    (folder / "study").mkdir()
    (folder / "study/readme.txt").write_text("nothing here")
    return to_volume(folder)


@malformed("DICOM: no CT in the study (MR)")
def _(folder):
    return study(folder, lambda s: set_all(s, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))


@malformed("DICOM: localizer only")
def _(folder):
    return study(folder, lambda s: set_all(s, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


@malformed("DICOM: one slice only")
def _(folder):
    return study(folder, lambda s: s[:1])


@malformed("DICOM: color secondary captures")
def _(folder):
    def color(slices):
        for one in slices:
            one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
            one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0

    return study(folder, color)


@malformed("DICOM: enhanced multi-frame CT", works=True)
def _(folder):
    (folder / "study").mkdir()
    enhanced(ct_array()).save_as(folder / "study/multi", enforce_file_format=True)
    return to_volume(folder)


@malformed("DICOM: no ImagePositionPatient")
def _(folder):
    return study(folder, lambda s: drop_all(s, "ImagePositionPatient"))


@malformed("DICOM: no PixelSpacing in one slice")
def _(folder):
    return study(folder, lambda s: drop_all(s[4:5], "PixelSpacing"))


@malformed("DICOM: orientation that is not a pair of axes")
def _(folder):
    return study(folder, lambda s: set_all(s, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))


@malformed("DICOM: no slope and intercept, stored unsigned")
def _(folder):
    return study(folder, lambda s: drop_all(s, "RescaleSlope", "RescaleIntercept"))


@malformed("DICOM: the same with --intercept -1024", works=True)
def _(folder):
    return [*study(folder, lambda s: drop_all(s, "RescaleSlope", "RescaleIntercept")), "--intercept", -1024]


@malformed("DICOM: RescaleSlope 0")
def _(folder):
    return study(folder, lambda s: set_all(s, RescaleSlope=0))


def set_raw(slices: list, keyword: str, value: bytes) -> None:
    """Write what pydicom would refuse to: ``value`` is of even length."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    for one in slices:
        one[keyword] = RawDataElement(Tag(keyword), "DS", len(value), value, 0, False, True)


@malformed("DICOM: RescaleSlope with a decimal comma")
def _(folder):
    return study(folder, lambda s: set_raw(s, "RescaleSlope", b"1,0 "))


@malformed("DICOM: two values of RescaleSlope")
def _(folder):
    return study(folder, lambda s: set_raw(s, "RescaleSlope", b"1\\1 "))


@malformed("DICOM: RescaleIntercept that is not a number")
def _(folder):
    return study(folder, lambda s: set_raw(s, "RescaleIntercept", b"abc "))


@malformed("DICOM: values in another unit (electron density)")
def _(folder):
    return study(folder, lambda s: set_all(s, RescaleType="ED"))


@malformed("DICOM: missing slice")
def _(folder):
    return study(folder, lambda s: s[:5] + s[6:])


@malformed("DICOM: missing slice with --interpolate", works=True)
def _(folder):
    return [*study(folder, lambda s: s[:5] + s[6:]), "--interpolate"]


@malformed("DICOM: the same slices twice", works=True)
def _(folder):
    study(folder)
    shutil.copytree(folder / "study", folder / "study/copy")
    return to_volume(folder)


@malformed("DICOM: different images at one position")
def _(folder):
    study(folder)
    save_slices(dicom_slices(ct_array() + 3)[:4], folder / "study/other")
    return to_volume(folder)


@malformed("DICOM: uneven slice distances")
def _(folder):
    def uneven(slices):
        for z, one in enumerate(slices):
            one.ImagePositionPatient = [-17, -23, -110 + 2.5 * z + 0.02 * z * z]

    return study(folder, uneven)


@malformed("DICOM: gantry tilt", works=True)
def _(folder):
    return study(folder, drift=(0, 0.6))


@malformed("DICOM: slices shifted sideways irregularly")
def _(folder):
    def shifted(slices):
        slices[6].ImagePositionPatient = [-10, -23, -110 + 15]

    return study(folder, shifted)


@malformed("DICOM: one file truncated")
def _(folder):
    study(folder)
    cut(sorted((folder / "study").iterdir())[4], 0.6)
    return to_volume(folder)


@malformed("DICOM: header without pixels")
def _(folder):
    return study(folder, lambda s: drop_all(s, "PixelData"))


@malformed("DICOM: compressed pixels damaged")
def _(folder):
    import pydicom

    command = study(folder)
    compress_files(folder / "study", "JPEG2000Lossless")
    path = sorted((folder / "study").iterdir())[3]
    damaged = pydicom.dcmread(path)
    damaged.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\x00\x00 not a codestream"])
    damaged.save_as(path)
    return command


@malformed("DICOM: several CT series, none chosen")
def _(folder):
    save_slices(dicom_slices(ct_array(), series=2), folder / "study")
    return study(folder)


@malformed("DICOM: a series that is not there")
def _(folder):
    return [*study(folder), "--series", 9]


def zipped(folder: Path, fill: Callable[[zipfile.ZipFile], None]) -> list:
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        fill(archive)
    return ["dicom", "convert", folder / "study.zip", "-o", folder / "out.nii.gz"]


@malformed("Zip: path traversal")
def _(folder):
    return zipped(folder, lambda archive: archive.writestr("../../evil.dcm", b"x"))


@malformed("Zip: absolute path")
def _(folder):
    return zipped(folder, lambda archive: archive.writestr("/etc/evil.dcm", b"x"))


@malformed("Zip: symbolic link")
def _(folder):
    def link(archive):
        entry = zipfile.ZipInfo("slice.dcm")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")

    return zipped(folder, link)


@malformed("Zip: bomb (12 GiB from some bytes)")
def _(folder):
    command = zipped(folder, lambda archive: [archive.writestr(f"{n}.dcm", bytes(5000)) for n in range(3)])
    raw = (folder / "study.zip").read_bytes()
    directory = raw.index(b"PK\x01\x02")  # only the sizes there count before unpacking
    claimed = raw[directory:].replace(struct.pack("<I", 5000), struct.pack("<I", 2**32 - 16))
    (folder / "study.zip").write_bytes(raw[:directory] + claimed)
    return command


@malformed("Zip: more inside than its directory says")
def _(folder):
    command = zipped(folder, lambda archive: archive.writestr("a.dcm", bytes(5000)))
    raw = (folder / "study.zip").read_bytes()
    (folder / "study.zip").write_bytes(raw.replace(struct.pack("<I", 5000), struct.pack("<I", 500)))
    return command


@malformed("Zip: encrypted")
def _(folder):
    command = zipped(folder, lambda archive: archive.writestr("a.dcm", b"x"))
    raw = bytearray((folder / "study.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (folder / "study.zip").write_bytes(raw)
    return command


@malformed("Zip: truncated")
def _(folder):
    study(folder)
    shutil.make_archive(str(folder / "study"), "zip", folder / "study")
    cut(folder / "study.zip")
    return ["dicom", "list", folder / "study.zip"]


@malformed("Zip: a file and a folder of one name")
def _(folder):
    return zipped(folder, lambda z: [z.writestr(name, b"x") for name in ("a", "a/b")])


@malformed("Zip: a name too long for any disk")
def _(folder):
    return zipped(folder, lambda z: z.writestr("x" * 300, b"x"))


@malformed("Zip: without DICOM files")
def _(folder):
    return zipped(folder, lambda archive: archive.writestr("notes.txt", "hello"))


@malformed("Zip: an archive that is none (tar.gz)")
def _(folder):
    study(folder)
    path = shutil.make_archive(str(folder / "study"), "gztar", folder / "study")
    return ["dicom", "list", path]


@malformed("Output: a name without a volume ending")
def _(folder):
    study(folder)
    return ["dicom", "convert", folder / "study", "-o", folder / "out.dcm"]


# --- livseg convert: segmentations with names


def segmented(folder: Path, name: str, change: Callable = lambda seg: None, *, study: bool = True) -> list:
    """A case of a CT and of its segmentation, which ``change`` may break; ``study``: the CT is its DICOM series."""
    import pydicom
    from dicom_samples import result, series

    from nnunet_livseg.report.dicom_rtstruct import write_rtstruct
    from nnunet_livseg.report.dicom_seg import write_seg
    from nnunet_livseg.report.viewer_files import write_seg_nrrd

    image, info = series(folder / "src/study")
    made, path = result(image, info, label_array()), folder / "src" / name
    {"seg.dcm": write_seg, "rt.dcm": write_rtstruct, "a.seg.nrrd": write_seg_nrrd}[name](made, path)
    if name.endswith(".dcm"):
        seg = pydicom.dcmread(path)
        if change(seg) is None:
            seg.save_as(path)
    write(image, folder / "src/ct.nii.gz")
    (folder / "src/cases.csv").write_text(f"image,label,case\n{'study' if study else 'ct.nii.gz'},{name},p1\n")
    return ["convert", "folder", folder / "src/cases.csv", "--id", 3, "--workers", 1, "--out", folder / "raw"]


def moved(seg, distance_mm: float) -> None:
    for roi in seg.ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float) + np.array([0, 0, distance_mm])
            contour.ContourData = points.round(3).ravel().tolist()


@malformed("Segmentation: DICOM SEG over a DICOM series, tumor-free slices missing", works=True)
def _(folder):
    return segmented(folder, "seg.dcm")


@malformed("Segmentation: RT structure set and a volume made from its series", works=True)
def _(folder):
    return segmented(folder, "rt.dcm", study=False)


@malformed("Segmentation: 3D Slicer numbers the tumor 1 and the liver 2", works=True)
def _(folder):
    command = segmented(folder, "a.seg.nrrd")
    path = folder / "src/a.seg.nrrd"
    image = sitk.ReadImage(str(path))
    labels = sitk.GetImageFromArray(np.array([0, 2, 1], np.uint8)[sitk.GetArrayFromImage(image)])
    labels.CopyInformation(image)
    for index, (name, value) in enumerate((("Tumor", 1), ("Liver", 2))):
        labels.SetMetaData(f"Segment{index}_Name", name)
        labels.SetMetaData(f"Segment{index}_LabelValue", str(value))
    sitk.WriteImage(labels, str(path))
    return command


@malformed("Segmentation: DICOM SEG whose frames are cut short")
def _(folder):
    return segmented(folder, "seg.dcm", lambda seg: setattr(seg, "PixelData", seg.PixelData[:50]))


@malformed("Segmentation: DICOM SEG in big endian")
def _(folder):
    def change(seg):
        import pydicom

        list(seg.iterall())
        seg.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        target = folder / "src/seg.dcm"
        pydicom.dcmwrite(target, seg, implicit_vr=False, little_endian=False, force_encoding=True)
        return True

    return segmented(folder, "seg.dcm", change)


@malformed("Segmentation: DICOM SEG of another place in the patient")
def _(folder):
    def change(seg):
        for frame in seg.PerFrameFunctionalGroupsSequence:
            x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, float(z) + 250]

    return segmented(folder, "seg.dcm", change)


@malformed("Segmentation: no segment is named liver or tumor")
def _(folder):
    def change(seg):
        for item, name in zip(seg.StructureSetROISequence, ("PTV", "Bowel"), strict=False):
            item.ROIName = name
        del seg.RTROIObservationsSequence

    return segmented(folder, "rt.dcm", change)


@malformed("Segmentation: a segment that is neither liver nor tumor")
def _(folder):
    def change(seg):
        lesion = seg.SegmentSequence[1]
        lesion.SegmentLabel = lesion.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Cyst"

    return segmented(folder, "seg.dcm", change)


@malformed("Segmentation: RT structure set with contours between the slices")
def _(folder):
    return segmented(folder, "rt.dcm", lambda seg: moved(seg, 1.2))


@malformed("Segmentation: RT structure set of another place in the patient")
def _(folder):
    return segmented(folder, "rt.dcm", lambda seg: moved(seg, 250))


@malformed("Segmentation: RT structure set with points only")
def _(folder):
    def change(seg):
        for roi in seg.ROIContourSequence:
            set_all(roi.ContourSequence, ContourGeometricType="POINT")

    return segmented(folder, "rt.dcm", change)


@malformed("Segmentation: DICOM SEG of a series that is not in the study")
def _(folder):
    def change(seg):
        seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"

    return segmented(folder, "seg.dcm", change)


@malformed("Segmentation: a slice of the CT in place of it")
def _(folder):
    command = segmented(folder, "seg.dcm")
    shutil.copy(next((folder / "src/study").iterdir()), folder / "src/seg.dcm")
    return command


# --- livseg align


def phases(folder: Path) -> list[Path]:
    return [write(ct_array(), folder / f"{name}.nii.gz") for name in ("venous", "arterial")]


@malformed("Align: one phase only")
def _(folder):
    return ["align", phases(folder)[0], "-o", folder / "out"]


@malformed("Align: a DICOM folder instead of a file")
def _(folder):
    study(folder)
    return ["align", phases(folder)[0], folder / "study", "-o", folder / "out"]


@malformed("Align: liver mask of another scan")
def _(folder):
    mask = write(label_array((10, 40, 48)), folder / "mask.nii.gz")
    return ["align", *phases(folder), "-o", folder / "out", "--mask", mask]


@malformed("Align: table with one phase")
def _(folder):
    phases(folder)
    (folder / "t.csv").write_text("case,venous,label\na,venous.nii.gz,\n")
    return ["align", folder / "t.csv", "--id", 4, "--raw", folder / "raw"]


@malformed("Align: table with a phase missing in one row")
def _(folder):
    phases(folder)
    (folder / "t.csv").write_text("case,venous,arterial\na,venous.nii.gz,\n")
    return ["align", folder / "t.csv", "--id", 4, "--raw", folder / "raw"]


# --- livseg segment: all DICOM inputs above, and these


def to_segmentation(source: Path | tuple[Path, ...], folder: Path, *options: object) -> list:
    """Segment ``source`` with a sound model."""
    sources = source if isinstance(source, tuple) else (source,)
    return [*_SEGMENT, *sources, "-m", known_model(folder), "-o", folder / "out", *options]


_SEGMENT = ("segment", "--quality", "fast", "--no-crop", "-device", "cpu", "--no-report")


def known_model(folder: Path) -> Path:
    from known_model import make_model

    return make_model(folder / "models")


def volume(folder: Path, array_or_image, name: str = "ct.nii.gz") -> Path:
    return write(array_or_image, folder / name)


@malformed("Segment: truncated NIfTI (ITK reads it without an error)")
def _(folder):
    path = volume(folder, ct_array())
    cut(path)
    return to_segmentation(path, folder)


@malformed("Segment: NIfTI with NaN")
def _(folder):
    values = ct_array().astype(np.float32)
    values[3, 4, 5] = np.nan
    return to_segmentation(volume(folder, values), folder)


@malformed("Segment: 4D NIfTI")
def _(folder):
    return to_segmentation(volume(folder, sitk.JoinSeries([as_image(ct_array())] * 2)), folder)


@malformed("Segment: 4D NIfTI with one volume", works=True)
def _(folder):
    return to_segmentation(volume(folder, sitk.JoinSeries([as_image(ct_array())])), folder)


@malformed("Segment: negative voxel size in the header", works=True)
def _(folder):
    path = volume(folder, ct_array())
    set_slice_distance(path, -2.5)
    return to_segmentation(path, folder)


@malformed("Segment: one slice")
def _(folder):
    return to_segmentation(volume(folder, ct_array()[:1]), folder)


@malformed("Segment: color NRRD")
def _(folder):
    return to_segmentation(volume(folder, sitk.JoinSeries([color_picture()] * 3), "ct.nrrd"), folder)


@malformed("Segment: PNG")
def _(folder):
    return to_segmentation(volume(folder, color_picture(), "ct.png"), folder)


@malformed("Segment: windowed gray values")
def _(folder):
    return to_segmentation(volume(folder, ct_array().clip(0, 255)), folder)


@malformed("Segment: Hounsfield units stored unsigned, intercept lost")
def _(folder):
    return to_segmentation(volume(folder, (ct_array() + 1024).astype(np.uint16)), folder)


@malformed("Segment: a DICOM intercept for a volume file")
def _(folder):
    return to_segmentation(volume(folder, ct_array()), folder, "--intercept", -1024)


@malformed("Segment: one value everywhere")
def _(folder):
    return to_segmentation(volume(folder, np.full((4, 8, 8), -1000, np.int16)), folder)


@malformed("Segment: no liver in the CT", works=True)
def _(folder):
    return to_segmentation(volume(folder, ct_array().clip(-1024, -50)), folder)


@malformed("Segment: empty file")
def _(folder):
    (folder / "ct.nii.gz").touch()
    return to_segmentation(folder / "ct.nii.gz", folder)


@malformed("Segment: a text file with a volume's name")
def _(folder):
    (folder / "ct.nrrd").write_text("hello")
    return to_segmentation(folder / "ct.nrrd", folder)


@malformed("Segment: channels on different grids")
def _(folder):
    paths = volume(folder, ct_array(), "a.nii.gz"), volume(folder, ct_array()[:-1], "b.nii.gz")
    return to_segmentation(paths, folder, "--channels")


@malformed("Segment: two phases for a model of one")
def _(folder):
    paths = volume(folder, ct_array(), "a.nii.gz"), volume(folder, ct_array(), "b.nii.gz")
    return to_segmentation(paths, folder, "--channels")


@malformed("Segment: the output is a file")
def _(folder):
    (folder / "file").touch()
    return [*to_segmentation(volume(folder, ct_array()), folder), "-o", folder / "file"]


@malformed("Segment: a folder that contains no model")
def _(folder):
    return to_segmentation(volume(folder, ct_array()), folder, "-m", folder)


@malformed("Segment: weights copied by half")
def _(folder):
    command = to_segmentation(volume(folder, ct_array()), folder)
    cut(next(folder.rglob("checkpoint_final.pth")))
    return command


@malformed("Segment: a training that has not ended")
def _(folder):
    command = to_segmentation(volume(folder, ct_array()), folder)
    weights = next(folder.rglob("checkpoint_final.pth"))
    weights.rename(weights.with_name("checkpoint_latest.pth"))
    return command


def as_segmentation(command: list, folder: Path) -> list:
    """``livseg dicom convert SOURCE -o OUT OPTIONS`` as ``livseg segment``."""
    _, _, source, _, _, *options = command
    return to_segmentation(source, folder, *options)


def run(one: Malformed, folder: Path) -> tuple[int, str]:
    """Make the input and give it to its command."""
    return outcome(one.make(folder), folder)


def outcome(command: list, folder: Path) -> tuple[int, str]:
    """Exit status and what was printed, without paths and times; the same on every machine."""
    from nnunet_livseg.cli import main

    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        status = main([str(word) for word in command])
    text = errors.getvalue() if status else printed.getvalue()
    text = re.sub(
        r"in \d+ s$", "in N s", text.replace(f"{folder}/", "").replace(str(folder), "FOLDER"), flags=re.MULTILINE
    )
    lines = [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]
    kept = [line for line in lines if line and not re.search(r"\d+%\||^  seconds: ", line)]  # nor progress bars
    return status, "\n".join(kept)


def page(outcomes: list[tuple[Malformed, int, str]]) -> str:
    refused = sum(status == 1 for _, status, _ in outcomes)
    parts = [_HEAD.format(count=len(outcomes), refused=refused, correct=len(outcomes) - refused)]
    groups: dict[str, list[str]] = {}
    for one, status, text in outcomes:
        group, _, name = one.name.rpartition(": ")
        text = textwrap.dedent(re.sub(_FRAME, r"\1", text, flags=re.DOTALL))
        entry = f"**{name}**{'' if status else ' (works)'}\n\n```text\n{text}\n```\n"
        groups.setdefault(group or "Images, labels and tables", []).append(entry)
    for group, entries in groups.items():
        parts += [f"## {group}\n", *entries]
    return "\n".join(parts)


_FRAME = r"^livseg convert: \d of \d cases cannot be used;[^\n]*\n(.*)\n  Correct the files, or skip[^\n]*$"
_HEAD = """# Malformed inputs

What the commands print for {count} bad inputs. {refused} end in one message and exit status 1, with nothing
half-written; {correct}, marked *works*, in a correct result. `livseg segment` says the same as `livseg dicom convert`
to every DICOM input and zip. `python tests/io/malformed.py --write` writes this page from what happens; a test fails
when it is stale.

`livseg convert` puts these lines around the messages about cases:

```text
livseg convert: 1 of 2 cases cannot be used; the dataset is not finished (no dataset.json).
  Correct the files, or skip cases with --exclude, and run the same command again; finished cases are kept.
```
"""


def main() -> None:
    results = []
    for one in LIST:
        with tempfile.TemporaryDirectory() as folder:
            results.append((one, *run(one, Path(folder))))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(results), encoding="utf-8")
    print(f"{PAGE}: {len(results)} inputs")


if __name__ == "__main__":
    if "--write" not in sys.argv:
        sys.exit("usage: python tests/io/malformed.py --write")
    main()
