"""Small CTs, label maps and DICOM series that the tests of data-in write themselves."""

import numpy as np
import SimpleITK as sitk

SPACING_MM = (2.5, 0.8, 0.7)  # z, y, x; unequal, so that swapped axes cannot pass


def ct_array(shape: tuple[int, int, int] = (12, 40, 48)) -> np.ndarray:
    """A body with liver (right, i.e. low x), spine (back, i.e. high y) and lung-like texture elsewhere, in HU."""
    rng = np.random.default_rng(0)
    _, y, x = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    values = np.full(shape, -1000.0)
    values[np.hypot((y - 0.5) / 0.45, (x - 0.5) / 0.48) < 1] = -90
    values[((x - 0.75) / 0.12) ** 2 + ((y - 0.35) / 0.2) ** 2 < 1] = -800
    values[liver_mask(shape)] = 100
    values[np.hypot((y - 0.85) / 0.08, (x - 0.5) / 0.08) < 1] = 600
    return (values + rng.normal(0, 8, shape)).clip(-1024, 3071).astype(np.int16)


def liver_mask(shape: tuple[int, int, int] = (12, 40, 48)) -> np.ndarray:
    """Not symmetric in any axis."""
    z, y, x = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    return ((x - 0.27) / 0.16) ** 2 + ((y - 0.42) / 0.24) ** 2 + ((z - 0.4) / 0.35) ** 2 < 1


def label_array(shape: tuple[int, int, int] = (12, 40, 48)) -> np.ndarray:
    z, y, x = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    label = liver_mask(shape).astype(np.uint8)
    label[((x - 0.27) / 0.07) ** 2 + ((y - 0.42) / 0.1) ** 2 + ((z - 0.4) / 0.15) ** 2 < 1] = 2
    return label


def as_image(array: np.ndarray, *, spacing_mm=SPACING_MM, origin_mm=(-17.0, -23.0, -110.0), direction=None):
    """SimpleITK image of ``array (z, y, x)``; origin in x, y, z."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin_mm)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def write(array_or_image, path):
    image = array_or_image if isinstance(array_or_image, sitk.Image) else as_image(array_or_image)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def dicom_slices(
    array: np.ndarray,
    *,
    spacing_mm=SPACING_MM,
    origin_mm=(-17.0, -23.0, -110.0),
    direction=None,
    drift=(0.0, 0.0),
    intercept: float = -1024,
    slope: float = 1,
    signed: bool = False,
    series: int = 3,
    **tags: object,
) -> list:
    """pydicom datasets of ``array (z, y, x)`` in HU, one per slice, lowest first.

    Args:
        drift: Sideways movement along x and y in mm per slice: a tilted gantry.
        tags: Further DICOM keywords for every slice.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    slices = []
    for z, plane in enumerate(array):
        moved = np.array([drift[0] * z, drift[1] * z, spacing_mm[0] * z])
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{series}.{z + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.826.0.1", f"1.2.826.0.1.{series}"
        one.PatientID = one.PatientName = "Secret"
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", series, z + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImagePositionPatient = [round(float(v), 5) for v in origin_mm + direction @ moved]
        one.ImageOrientationPatient = [round(float(v), 8) for v in direction[:, :2].T.ravel()]
        one.PixelSpacing = list(spacing_mm[1:])
        one.SliceThickness = spacing_mm[0]
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, int(signed)
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = slope, intercept, "HU"
        stored = np.rint((plane.astype(float) - intercept) / slope)
        one.PixelData = stored.astype(np.int16 if signed else np.uint16).tobytes()
        for keyword, value in tags.items():
            setattr(one, keyword, value)
        slices.append(one)
    return slices


def save_slices(slices: list, folder, *, shuffled: bool = True) -> None:
    """Write slices under names that say nothing about their order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(1).permutation(len(slices)) if shuffled else range(len(slices))
    for name, one in zip(names, slices, strict=True):
        one.save_as(folder / f"I{name + 1000 * int(one.SeriesNumber):06d}", enforce_file_format=True)


def compress_files(folder, syntax: str) -> None:
    """Compress every file of a folder in place; ``syntax`` as gdcm spells it, e.g. ``JPEG2000Lossless``."""
    import gdcm

    for path in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def rotated(degrees=(10.0, -20.0, 30.0)) -> np.ndarray:
    """An oblique right-handed direction matrix."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def enhanced(array: np.ndarray, *, spacing_mm=SPACING_MM):
    """An enhanced multi-frame CT of ``array (z, y, x)`` in HU, its frames in mixed order."""
    from pydicom.dataset import Dataset

    frames = np.random.default_rng(2).permutation(len(array))
    one = dicom_slices(array)[0]
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(one, keyword)
    del one.RescaleIntercept
    one.NumberOfFrames = len(array)
    one.PixelData = (array[frames].astype(int) + 1024).astype(np.uint16).tobytes()

    def group(**values: object) -> list:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return [item]

    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=list(spacing_mm[1:]), SliceThickness=spacing_mm[0])
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    one.SharedFunctionalGroupsSequence = [shared]
    places = []
    for z in frames.tolist():
        place = Dataset()
        place.PlanePositionSequence = group(ImagePositionPatient=[-17, -23, -110 + spacing_mm[0] * z])
        places.append(place)
    one.PerFrameFunctionalGroupsSequence = places
    return one
