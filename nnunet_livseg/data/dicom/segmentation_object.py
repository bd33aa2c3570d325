"""The segments of a DICOM segmentation (SEG), read by highdicom. Needs the extra ``nnunet-livseg[dicom]``.

Bits, fractions and label maps, in every transfer syntax that pydicom decodes, frames in any order. Slices without a
voxel may be missing from the file, so its grid is a part of the series' grid.
"""

from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.dicom.headers import highdicom_module
from nnunet_livseg.imaging.grid import ImageGrid
from nnunet_livseg.imaging.named_segments import NamedSegments

_INSIDE = 0.5  # of a voxel, or the probability of it, from which on a fractional segment holds it


def read_segmentation(path: Path, dataset) -> NamedSegments:
    """The segments of the pydicom ``dataset`` of ``path``.

    Raises:
        UserError: It is not a volume, is damaged, or has a compression that cannot be decoded.
    """
    segmentation = highdicom_module().seg.Segmentation
    if not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        raise UserError(
            f"{path} is stored in big endian, a transfer syntax that DICOM has retired and highdicom does not read.\n"
            "  Convert it, for example with DCMTK: dcmconv +te IN OUT"
        )
    try:
        found = segmentation.from_dataset(dataset, copy=False)
        geometry = found.get_volume_geometry()
    except Exception as error:  # the standard can be broken in more ways than highdicom has kinds of errors
        raise _damaged(path, error) from error
    if geometry is None:
        raise UserError(
            f"{path} is a DICOM SEG whose frames form no volume: they are uneven, tilted or lie in several planes.\n"
            "  Export the segmentation again on the slices of its CT."
        )
    fractional = found.segmentation_type.value == "FRACTIONAL"

    def mask(number: int, grid: ImageGrid) -> np.ndarray:
        try:
            volume = found.get_volume(segment_numbers=[number], combine_segments=False, allow_missing_positions=True)
        except Exception as error:  # a decoder's own
            raise _damaged(path, error) from error
        values = volume.array[..., 0]
        return values >= _INSIDE if fractional else values > 0

    names = {item.segment_number: _names(item) for item in map(found.get_segment_description, found.segment_numbers)}
    notes = (f"{path.name}: fractional segments cut at {_INSIDE:g}",) if fractional else ()
    return NamedSegments(path, names, mask, _grid(geometry), notes=notes)


def _names(segment) -> tuple[str, ...]:
    """Its label, and region and type as one name: ``Liver Neoplasm``."""
    regions = [region.meaning for region in segment.anatomic_regions[:1]]
    return segment.segment_label, " ".join([*regions, segment.segmented_property_type.meaning])


def _grid(geometry) -> ImageGrid:
    """highdicom counts slice, row, column; ITK x, y, z."""
    axes = geometry.affine[:3, 2::-1]
    spacing_mm = np.linalg.norm(axes, axis=0)
    origin_mm, size = geometry.affine[:3, 3], geometry.spatial_shape[::-1]
    return ImageGrid(
        tuple(size), tuple(spacing_mm.tolist()), tuple(origin_mm.tolist()), tuple((axes / spacing_mm).ravel().tolist())
    )


def _damaged(path: Path, error: Exception) -> UserError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"{path} is a DICOM SEG that cannot be read: {said}\n"
        "  It is damaged, or its compression is not known here (decoders: pip install 'nnunet-livseg[dicom]')."
        " Export it again."
    )
