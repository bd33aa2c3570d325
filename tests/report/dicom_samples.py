"""Segmented series made by hand, and a reader of DICOM SEG that shares no code with what wrote it."""

import numpy as np
import SimpleITK as sitk
from io_samples import ct_array, dicom_slices, save_slices
from scipy import ndimage

from nnunet_livseg.data.dicom import read_series
from nnunet_livseg.patient.segmentation import (
    Diameter,
    Lesion,
    Measurements,
    Provenance,
    Segmentation,
    StructureSize,
)
from nnunet_livseg.report.dicom_seg import write_seg
from nnunet_livseg.report.dicom_sr import write_sr

STRUCTURES = {"liver": (1, 2), "tumor": (2,)}
FRAME_OF_REFERENCE = "1.2.826.0.1.77"
PROVENANCE = Provenance(
    "Dataset003_Liver DPCNetTrainer", ("0", "1"), "final", "fast", {"step": "0.5"}, "cpu", 1.0, {"torch": "2"}
)
# every value is unlike anything else in a file, so that finding it in the bytes means that it was copied
IDENTITY = {
    "PatientName": "Zyxwvut^Quirin",
    "PatientID": "PID-4711-XQ",
    "PatientBirthDate": "19310207",
    "PatientSex": "O",
    "PatientAge": "094Y",
    "AccessionNumber": "ACC-0815-ZZ",
    "StudyID": "STU-99-Q",
    "StudyDate": "20190304",
    "StudyTime": "101112.131415",
    "StudyDescription": "Abdomen of Zyxwvut",
    "ReferringPhysicianName": "Doktor^Wunderlich",
    "OtherPatientNames": "Geborene^Abcdef",
    "PatientComments": "lives in Hinterobersdorf",
}
# of the source's equipment and series, or retired; never copied
NOT_OURS = {
    "InstitutionName": "Klinikum Irgendwo",
    "StationName": "SCANNER-77X",
    "DeviceSerialNumber": "SN-556677",
    "OperatorsName": "Tech^Nikolaus",
    "SeriesDescription": "pv of Mrs Zyxwvut",
    "AcquisitionDate": "20190305",
    "OtherPatientIDs": "OTHER-31337",  # retired
    "ProtocolName": "protocol Wunderlich",
}


def series(folder, array=None, **options):
    """Write a series under names without order and read it."""
    array = ct_array() if array is None else array
    save_slices(dicom_slices(array, **{"FrameOfReferenceUID": FRAME_OF_REFERENCE, **options}), folder)
    return read_series(folder)


def blobs(shape, *, seed=0):
    """Labels with a liver of several parts and five tumors: two touch the first and the last slice, one is a voxel."""
    z, y, x = np.indices(shape)
    depth, height, width = shape
    labels = (np.random.default_rng(seed).random(shape) < 0.02).astype(np.uint8)
    labels[(np.abs(y - height * 0.4) < height * 0.3) & (np.abs(x - width * 0.3) < width * 0.2)] = 1
    labels[depth // 3, :, :] = 0  # a slice without anything
    for place, radius in (((0, 0.3, 0.2), 3), ((1, 0.5, 0.35), 4), ((0.7, 0.25, 0.4), 2)):
        center = np.array([place[0] * (depth - 1), place[1] * height, place[2] * width]).round()
        labels[((z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2) <= radius**2] = 2
    labels[depth // 2, height // 2, 0] = labels[depth // 2, height - 1, width - 1] = 2
    labels[depth // 3] = 0
    return labels


def result(image, info, labels, *, structures=None, **changes):
    """A result of ``labels (z, y, x)``; lesions by scipy, numbers that are easy to tell apart."""
    structures = STRUCTURES if structures is None else structures
    lesions, count = ndimage.label(labels == 2)
    lesions = lesions.astype(np.uint16)
    hu = sitk.GetArrayFromImage(image)
    volume_ml = float(np.prod(image.GetSpacing())) / 1000
    sizes = {}
    for name, values in structures.items():
        inside = hu[np.isin(labels, values)]
        sizes[name] = StructureSize(
            inside.size * volume_ml, *((inside.mean(), inside.std()) if inside.size else (np.nan, np.nan))
        )
    has_tumor = "tumor" in structures
    found = [_lesion(number, lesions == number, hu, volume_ml) for number in range(1, count + 1)]
    parts = {
        "name": "case",
        "image": image,
        "labels": like(image, labels),
        "structures": structures,
        "lesions": like(image, lesions) if has_tumor else None,
        "measurements": Measurements(sizes, tuple(found) if has_tumor else None),
        "provenance": PROVENANCE,
        "series": info,
    }
    return Segmentation(**{**parts, **changes})


def _lesion(number, inside, hu, volume_ml):
    slices = np.flatnonzero(inside.any(axis=(1, 2)))
    ends = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    return Lesion(
        number,
        float(inside.sum() * volume_ml),
        Diameter(10.25 + number, ends),
        Diameter(5.125 + number, ends, int(slices[-1])),
        float(hu[inside].mean()),
        float(hu[inside].std()),
        ends[0],
        ndimage.find_objects(inside.astype(np.uint8))[0],
    )


def like(image, array):
    """``array`` as an image on the grid of ``image``."""
    made = sitk.GetImageFromArray(np.ascontiguousarray(array))
    made.CopyInformation(image)
    return made


def frames(seg):
    """Of every frame: segment number, source UID, source frame (from 1; None), position in mm, bits."""
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    for item, bits in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        named = item if "SegmentIdentificationSequence" in item else shared
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        yield (
            int(named.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
            source.ReferencedSOPInstanceUID,
            source.get("ReferencedFrameNumber"),
            np.array(item.PlanePositionSequence[0].ImagePositionPatient, float),
            bits.astype(bool),
        )


def rebuilt(seg, info, shape):
    """Masks ``(z, y, x)`` by segment label, every frame put where its reference to a source slice says."""
    masks = {segment.SegmentNumber: np.zeros(shape, bool) for segment in seg.SegmentSequence}
    place = {(uid, None if frame is None else frame + 1): z for z, (uid, frame) in enumerate(info.instances)}
    for number, uid, frame, _, bits in frames(seg):
        z = place[uid, frame]
        assert not masks[number][z].any(), "two frames for one slice"
        masks[number][z] = bits
    return {segment.SegmentLabel: masks[segment.SegmentNumber] for segment in seg.SegmentSequence}


def labels_of(masks, *, values=None):
    """The label map that the masks of a SEG stand for."""
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for name, mask in masks.items():
        assert not labels[mask].any(), "segments overlap"
        labels[mask] = (values or {}).get(name, 2 if name.startswith("Lesion") else 1)
    return labels


def both_files(made, folder, **options):
    """The paths of SEG and SR of the result ``made``."""
    seg = write_seg(made, folder / "seg.dcm", **options)
    return seg, write_sr(made, folder / "sr.dcm", seg=seg)


def array(image):
    return sitk.GetArrayFromImage(image)
