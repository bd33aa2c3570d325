"""A file's unpacked content, and the header of a NIfTI-1 file: its fields, and which of them can be trusted."""

import gzip
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import as_size
from nnunet_livseg.imaging.grid import ROUNDING_VOXELS

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # SimpleITK and DICOM count towards left and back, NIfTI right and front
_LENGTH_TOLERANCE = 0.01  # relative, of a voxel size or of a quaternion
_SIZES_MM = (0.005, 100.0)  # of a voxel, in any scan of a patient
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # of xyzt_units; all else counts as mm
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_START = 352  # bytes that tell formats apart; the longest header that is asked needs 348
_COLORS = (128, 2304)
_FIELDS = {  # type, count, first byte
    "dim": ("i2", 8, 40),
    "datatype": ("i2", 1, 70),
    "bitpix": ("i2", 1, 72),
    "pixdim": ("f4", 8, 76),
    "vox_offset": ("f4", 1, 108),
    "scl": ("f4", 2, 112),
    "codes": ("i2", 2, 252),
    "quatern": ("f4", 3, 256),
    "qoffset": ("f4", 3, 268),
    "srow": ("f4", 12, 280),
}


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says; the fields have the names of the format.

    Args:
        order: ``<`` or ``>``, of the bytes.
        scl: Slope and intercept.
        codes: Of the qform and the sform.
        packed: Whether the file is gzip's.
    """

    order: str
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: np.ndarray
    vox_offset: float
    scl: tuple[float, float]
    xyzt_units: int
    codes: tuple[int, int]
    quatern: np.ndarray
    qoffset: np.ndarray
    srow: np.ndarray
    packed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (x, y, z, ...), without dimensions of length 1 behind the third."""
        sizes = list(self.dim[1 : 1 + self.dim[0]])
        while len(sizes) > 3 and sizes[-1] == 1:
            sizes.pop()
        return tuple(sizes)

    @property
    def bytes_of_file(self) -> int:
        """Bytes of the unpacked file, up to the last voxel."""
        return int(self.vox_offset) + int(np.prod([int(size) for size in self.shape])) * self.bitpix // 8

    @property
    def is_color(self) -> bool:
        return self.datatype in _COLORS

    @property
    def unit_mm(self) -> float:
        return _UNITS.get(self.xyzt_units & 7, ("", 1.0))[1]

    @property
    def sizes_mm(self) -> list[float]:
        """``pixdim`` of the three axes, with its signs."""
        return [round(float(size) * self.unit_mm, 6) for size in self.pixdim[1:4]]

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept as the format defines them: a slope of 0, or none, means stored values."""
        slope, intercept = self.scl
        if slope == 0 or not np.isfinite(slope):
            return 1.0, 0.0
        return slope, intercept if np.isfinite(intercept) else 0.0

    @property
    def not_numbers(self) -> list[str]:
        """Fields about the place that hold NaN or infinity."""
        return [name for name in ("quatern", "qoffset", "srow") if not np.isfinite(getattr(self, name)).all()]

    def type_of(self, path: Path) -> np.dtype:
        """The type of a voxel in the file.

        Raises:
            UserError: One that SimpleITK does not read either.
        """
        if self.datatype not in _TYPES:
            raise UserError(f"{path}: its voxels have the datatype {self.datatype}, which no CT has. Save it as int16.")
        return np.dtype(f"{self.order}{_TYPES[self.datatype]}")

    def scale_notes(self, path: Path) -> list[str]:
        """What had to be decided about slope and intercept; empty for those that every reader understands.

        Raises:
            UserError: Infinite values.
        """
        slope, intercept = self.scl
        if np.isinf(slope) or np.isinf(intercept):
            raise UserError(
                f"{path}: the header fields scl_slope {slope:g} and scl_inter {intercept:g} are infinite, so no value"
                " is known.\n  Export the volume again."
            )
        if np.isnan(slope) or slope == 0:
            known = intercept == 0 or (np.isnan(slope) and np.isnan(intercept))
            return [] if known and slope == 0 else [f"scl_slope {slope:g} in the header: values taken as stored"]
        return ["scl_inter is NaN in the header: taken as 0"] if np.isnan(intercept) else []

    def affine_mm(self, path: Path) -> tuple[np.ndarray | None, list[str]]:
        """Voxel indices to millimeters right, front, up, and notes; no affine where the header does not say a place.

        Raises:
            UserError: The field that is no number, is singular, or contradicts another.
        """
        self._require_sizes(path)
        notes = []
        if min(self.sizes_mm) < 0:
            notes.append(f"negative voxel size {self.sizes_mm} mm in the header; the affine was used instead")
        if self.xyzt_units & 7 in _UNITS:
            notes.append(f"lengths in {_UNITS[self.xyzt_units & 7][0]} in the header (xyzt_units); taken as mm")
        if self.codes[1] > 0 and np.isfinite(self.srow).all():
            affine = self._sform(path)
            if self.codes[0] <= 0 and self.sizes_mm == [1.0, 1.0, 1.0]:
                lengths = np.linalg.norm(affine[:3, :3], axis=0)
                if not np.allclose(lengths, 1, rtol=_LENGTH_TOLERANCE, atol=0):
                    notes.append("pixdim in the header was never set (1 x 1 x 1); voxel sizes of the sform were used")
            else:
                self._require_one_scale(path, affine)
            apart_mm = self._from_qform_mm(path, affine)
            if apart_mm > ROUNDING_VOXELS * min(map(abs, self.sizes_mm)):
                notes.append(f"qform and sform of the header lie up to {apart_mm:.3g} mm apart; the sform was used")
            return affine, notes
        if self.codes[0] > 0 and np.isfinite([*self.quatern, *self.qoffset]).all():
            if self.codes[1] > 0:
                notes.append("the sform (srow_x, srow_y, srow_z) is not a number; the qform was used")
            return self._qform(path), notes
        if max(self.codes) > 0:
            raise UserError(
                f"{path}: the header fields {' and '.join(self.not_numbers)} are NaN or infinite, so the origin and"
                " with it the place of every voxel in the patient is not known.\n"
                "  Write the header again, for example with the affine of the image that it was made from."
            )
        return None, [
            *notes,
            "neither qform nor sform in the header, so the place of the volume in the patient is not known",
        ]

    def _require_sizes(self, path: Path) -> None:
        sizes = self.sizes_mm
        if any(size == 0 or not np.isfinite(size) for size in sizes[: self.dim[0]]):
            raise UserError(f"{path}: the header gives voxel sizes {sizes} mm; none may be 0. Write them again.")
        if any(not _SIZES_MM[0] <= abs(size) <= _SIZES_MM[1] for size in sizes[: min(3, self.dim[0])]):
            raise UserError(
                f"{path}: the header gives voxel sizes {sizes} mm (pixdim {self.pixdim[1:4].tolist()}, xyzt_units"
                f" {self.xyzt_units}), as no scan of a patient has. Write sizes and unit again."
            )

    def _sform(self, path: Path) -> np.ndarray:
        affine = np.vstack([self.srow * self.unit_mm, [0, 0, 0, 1]])
        if not np.linalg.norm(affine[:3, :3], axis=0).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise UserError(
                f"{path}: the header's affine is singular (srow_x, srow_y, srow_z), so positions are lost."
                " Write the header again."
            )
        return affine

    def _require_one_scale(self, path: Path, affine: np.ndarray) -> None:
        sizes, lengths = np.abs(self.sizes_mm), np.linalg.norm(affine[:3, :3], axis=0)
        if len(self.shape) == 3 and not np.allclose(sizes, lengths, rtol=_LENGTH_TOLERANCE, atol=0):
            one, other = (as_size(each, ".4g") for each in (sizes, lengths))
            raise UserError(
                f"{path}: the header gives two voxel sizes, {one} mm in pixdim and {other} mm in the sform (srow_x,"
                f" srow_y, srow_z; x, y, z),\n  so volumes differ by a factor of {lengths.prod() / sizes.prod():.3g}."
                " Find out which one is right and write it into both."
            )

    def _qform(self, path: Path) -> np.ndarray:
        from nibabel.quaternions import quat2mat

        b, c, d = self.quatern
        length = float(np.sqrt(b * b + c * c + d * d))
        if length > 1 + _LENGTH_TOLERANCE:
            raise UserError(
                f"{path}: the quaternion of the qform in the header (quatern_b, quatern_c, quatern_d) has the length"
                f" {length:.3f}, but at most 1 is valid.\n  The voxels are not damaged: write the header's qform again."
            )
        if length > 1:  # by rounding
            b, c, d = self.quatern / length
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        affine = np.eye(4)
        affine[:3, :3] = quat2mat([a, b, c, d]) * np.abs(self.sizes_mm) * [1, 1, -1 if self.pixdim[0] < 0 else 1]
        affine[:3, 3] = self.qoffset * self.unit_mm
        return affine

    def _from_qform_mm(self, path: Path, affine: np.ndarray) -> float:
        """How far a corner of the volume moves if the qform counts; 0 where there is no valid one."""
        if self.codes[0] <= 0 or len(self.shape) != 3 or not np.isfinite([*self.quatern, *self.qoffset]).all():
            return 0.0
        try:
            moved = affine - self._qform(path)
        except UserError:  # a broken qform has no place to compare with
            return 0.0
        corners = np.array([[*corner, 1] for corner in product(*((-0.5, size - 0.5) for size in self.shape))])
        return float(np.linalg.norm(corners @ moved.T, axis=1).max())


def is_nifti(start: bytes) -> bool:
    """Whether content that begins so is meant to be NIfTI-1 in one file."""
    return start[344:347] == b"n+1"


def read_header(path: Path, start: bytes) -> NiftiHeader:
    """The header of a NIfTI-1 file whose unpacked content begins with ``start``.

    Raises:
        UserError: The field that no image can have.
    """
    order = next(
        (order for order, name in (("<", "little"), (">", "big")) if int.from_bytes(start[:4], name) == 348), ""
    )
    if not order:
        raise UserError(f"{path}: the header field sizeof_hdr is not 348, as in NIfTI-1. Export the volume again.")
    values = {name: np.frombuffer(start, f"{order}{kind}", count, at) for name, (kind, count, at) in _FIELDS.items()}
    header = NiftiHeader(
        order,
        tuple(values["dim"].tolist()),
        int(values["datatype"][0]),
        int(values["bitpix"][0]),
        values["pixdim"].astype(float),
        float(values["vox_offset"][0]),
        tuple(values["scl"].tolist()),
        start[123],
        tuple(values["codes"].tolist()),
        values["quatern"].astype(float),
        values["qoffset"].astype(float),
        values["srow"].reshape(3, 4).astype(float),
        is_packed(path),
    )
    if problem := _size_problem(header):
        raise UserError(f"{path}: {problem}. Export the volume again.")
    return header


def _size_problem(header: NiftiHeader) -> str:
    count = header.dim[0]
    if not 1 <= count <= 7 or any(size < 1 for size in header.dim[1 : 1 + count]):
        return f"the header field dim is {list(header.dim)}, which is not the size of an image"
    if not np.isfinite(header.vox_offset) or header.vox_offset < 0:
        return f"the header field vox_offset is {header.vox_offset:g}, so the start of the voxels is not known"
    wanted = np.dtype(_TYPES[header.datatype]).itemsize * 8 if header.datatype in _TYPES else header.bitpix
    if header.bitpix != wanted or wanted < 1:
        return f"the header field bitpix is {header.bitpix}, but datatype {header.datatype} has {wanted} bits"
    return ""


# --- content, unpacked


def is_packed(path: Path) -> bool:
    """Whether the content is gzip's."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def opened(path: Path) -> BinaryIO:
    """The content, unpacked where it is packed."""
    return gzip.open(path) if is_packed(path) else path.open("rb")


def first_bytes(path: Path) -> bytes:
    """How the unpacked content begins.

    Raises:
        EOFError, OSError, zlib.error: A packed file that is damaged from the start.
    """
    with opened(path) as file:
        return file.read(_START)
