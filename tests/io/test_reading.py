"""One reader: content before name, every field of a NIfTI header right or named, damage only where there is damage."""

import gzip
import json
import os
import re
import shutil
import struct
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image, ct_array, label_array, write

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import stem
from nnunet_livseg.imaging import images
from nnunet_livseg.imaging.images import read_volume, write_volume
from nnunet_livseg.imaging.label_maps import read_label_map
from nnunet_livseg.imaging.label_names import label_names
from nnunet_livseg.inference.ct_input import read_ct

CT = ct_array()
NAN = float("nan")
FIELDS = {  # first byte and type
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow_x": (280, "4f"),
    "srow_y": (296, "4f"),
    "srow_z": (312, "4f"),
    "magic": (344, "4s"),
}
DOUBLE = {"srow_x": (-1.4, 0, 0, 17), "srow_y": (0, -1.6, 0, 23), "srow_z": (0, 0, 5, -110)}
NO_PLACE = {"qoffset": (NAN,) * 3, "srow_x": (-0.7, 0, 0, NAN)}


def patched(path, array=CT, **fields):
    """A volume whose header has these fields."""
    write(array, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    for name, value in fields.items():
        first, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", raw, first, *(value if isinstance(value, tuple) else (value,)))
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


SAME, NOTED = "", "noted"
HEADERS = {  # fields, and the words of the refusal, or of the note behind NOTED, or nothing: the plain image
    "sound": ({}, SAME),
    "sform twice pixdim": (
        DOUBLE | {"qform_code": 0},
        r"two voxel sizes, 0.7 x 0.8 x 2.5 mm.*1.4 x 1.6 x 5 .*factor of 8",
    ),
    "sform twice pixdim, with a qform": (DOUBLE, "two voxel sizes"),
    "sform thicker": ({"srow_z": (0, 0, 3.33, -110)}, "two voxel sizes.*0.7 x 0.8 x 3.33"),
    "sform by rounding": ({"srow_z": (0, 0, 2.50001, -110)}, SAME),
    "pixdim 0": ({"pixdim": (1, 0.7, 0.8, 0, 1, 1, 1, 1)}, "none may be 0"),
    "pixdim NaN": ({"pixdim": (1, 0.7, NAN, 2.5, 1, 1, 1, 1)}, r"voxel sizes \[0.7, nan, 2.5\]"),
    "pixdim huge": ({"pixdim": (1, 7e5, 0.8, 2.5, 1, 1, 1, 1), "sform_code": 0}, "as no scan of a patient has"),
    "pixdim negative": ({"pixdim": (1, 0.7, 0.8, -2.5, 1, 1, 1, 1)}, NOTED + "negative voxel size"),
    "metres": ({"xyzt_units": 1}, "xyzt_units 1"),
    "no unit": ({"xyzt_units": 0}, SAME),
    "origin NaN": (NO_PLACE, "qoffset and srow are NaN or infinite, so the origin"),
    "sform NaN": ({"srow_x": (-0.7, 0, 0, NAN)}, NOTED + "the qform was used"),
    "qform NaN": ({"qoffset": (NAN,) * 3}, SAME),
    "qform elsewhere": ({"qoffset": (17, 23, -105)}, NOTED + "qform and sform .* up to 5 mm apart; the sform was used"),
    "qform elsewhere by rounding": ({"qoffset": (17.01, 23, -110)}, SAME),
    "qform of another direction": ({"quatern": (1, 0, 0)}, NOTED + "qform and sform of the header lie"),
    "quaternion NaN": ({"quatern": (NAN, 0, 1), "sform_code": 0}, "quatern are NaN"),
    "quaternion by rounding": ({"quatern": (0, 0, 1.00001), "sform_code": 0}, SAME),
    "quaternion too long": ({"quatern": (0, 0, 1.2), "sform_code": 0}, "quatern_b, .*length 1.200.*not damaged"),
    "quaternion too long, with a sform": ({"quatern": (0, 0, 1.2)}, SAME),
    "no sform": ({"sform_code": 0}, SAME),
    "no qform": ({"qform_code": 0}, SAME),
    "sform singular": ({"srow_x": (0, 0, 0, 17)}, "affine is singular"),
    "scl_slope 0": ({"scl_slope": 0}, SAME),
    "scl_slope 0 with an intercept": ({"scl_slope": 0, "scl_inter": -1024}, NOTED + "scl_slope 0.*as stored"),
    "scl_slope NaN": ({"scl_slope": NAN, "scl_inter": NAN}, NOTED + "scl_slope nan.*as stored"),
    "scl_inter NaN": ({"scl_slope": 1, "scl_inter": NAN}, NOTED + "scl_inter is NaN.*taken as 0"),
    "scl_slope infinite": ({"scl_slope": float("inf")}, "scl_slope inf"),
    "dim 0": ({"dim": (3, 48, 0, 12, 1, 1, 1, 1)}, "field dim"),
    "dim too many": ({"dim": (9, 48, 40, 12, 1, 1, 1, 1)}, "field dim"),
    "datatype unknown": ({"datatype": 999}, "datatype 999"),
    "bitpix wrong": ({"bitpix": 8}, "bitpix is 8, but datatype 4 has 16 bits"),
    "vox_offset NaN": ({"vox_offset": NAN}, "vox_offset is nan"),
    "sizeof_hdr": ({"sizeof_hdr": 0}, "sizeof_hdr"),
    "magic": ({"magic": b"xyz\0"}, "not a NIfTI file"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_every_field_of_a_header_is_right_or_named(tmp_path, name):
    fields, message = HEADERS[name]
    path = patched(tmp_path / "ct.nii.gz", **fields)
    if message and not message.startswith(NOTED):
        with pytest.raises(UserError, match=rf"(?s)ct\.nii\.gz.*{message}") as caught:
            read_volume(path)
        if name != "magic":
            assert "it is damaged" not in str(caught.value)
        for reader in (read_label_map, read_ct):
            with pytest.raises(UserError, match=f"(?s){message}"):
                reader(path)
        return
    volume = read_volume(path)
    assert re.search(message.removeprefix(NOTED), " ".join(volume.notes)) and bool(volume.notes) == bool(message)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), CT)
    np.testing.assert_allclose(volume.image.GetOrigin(), (-17, -23, -110), atol=1e-4)
    np.testing.assert_allclose(volume.image.GetSpacing(), (0.7, 0.8, 2.5), rtol=1e-5)
    write_volume(volume.image, tmp_path / "out.nii.gz")  # a label map on this grid has the affine of a sound input
    sound = nibabel.load(write(CT, tmp_path / "sound.nii.gz")).affine
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii.gz").affine, sound, atol=1e-3)


def test_a_scaled_volume_is_as_simpleitk_reads_it(tmp_path):
    path = patched(tmp_path / "ct.nii.gz", scl_slope=2, scl_inter=-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path).image), CT * 2.0 - 5)


def test_big_endian_and_other_types(tmp_path):
    for kind in (">i2", "<i4", "<f4", ">f8", "<u2", "<i1"):
        values = (CT.astype(int) % 100).astype(kind)
        affine = np.diag([-0.7, -0.8, 2.5, 1])
        image = nibabel.Nifti1Image(values.T, affine, nibabel.Nifti1Header(endianness=kind[0]), dtype=values.dtype)
        image.to_filename(tmp_path / "a.nii")
        for change in ({}, {"scl_inter": NAN, "scl_slope": 1}):
            raw = bytearray((tmp_path / "a.nii").read_bytes())
            for name, value in change.items():
                struct.pack_into(f"{kind[0]}f", raw, FIELDS[name][0], value)
            (tmp_path / "a.nii").write_bytes(raw)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / "a.nii").image), values)


# --- names and content


def plain(folder):
    image = as_image(CT)
    for end in (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl"):
        sitk.WriteImage(image, str(folder / f"plain{end}"))
    sitk.WriteImage(image, str(folder / "packed.nrrd"), useCompression=True)


NAMES = [
    *[("plain.nii.gz", name) for name in ("A.NII.GZ", "a.Nii.Gz", "a.nii", "a.nrrd", "a", "a.img", "a.b.c.nii.gz")],
    *[("plain.nii", name) for name in ("a.nii.gz", "A.NII", "a.NII.GZ", "a.mha", "volume", "a.dcm")],
    *[("plain.nrrd", name) for name in ("a.NRRD", "a.seg.nrrd", "a.SEG.NRRD", "a.nii.gz", "a.mha")],
    *[("plain.mha", name) for name in ("a.MHA", "a.nii.gz", "a.nrrd")],
    *[("plain.gipl", name) for name in ("a.GIPL", "a.nii")],
    ("packed.nrrd", "a.NRRD"),
]


@pytest.mark.parametrize(("source", "name"), NAMES)
def test_content_comes_before_the_name(tmp_path, source, name):
    plain(tmp_path)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    shutil.copy(tmp_path / source, path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path).image), CT)
    np.testing.assert_array_equal(read_label_map(path).labels, CT)
    assert read_ct(path).image.GetSize() == (48, 40, 12)
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.nii.gz", "A.NII.GZ", "a.Nii", "a.SEG.NRRD", "a.MHA", "a.b.nrrd"])
def test_every_ending_is_written(tmp_path, name):
    write_volume(as_image(CT), tmp_path / name)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / name).image), CT)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no file names that are not UTF-8")
@pytest.mark.parametrize("name", [b"M\xfcller.nii.gz", b"M\xfcller.NRRD", b"a.\xfc.mha", b"plain.nii"])
def test_names_that_are_no_utf8_are_read_and_written(tmp_path, name):
    """Of old file servers and unpacked archives; SimpleITK ends the whole process at them."""
    folder = tmp_path / os.fsdecode(b"gr\xfcn")
    folder.mkdir()
    image = as_image(CT)
    write_volume(image, folder / os.fsdecode(name))
    assert [path.name for path in folder.iterdir()] == [os.fsdecode(name)]
    found = read_volume(folder / os.fsdecode(name)).image
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), CT)
    assert found.GetSpacing() == pytest.approx(image.GetSpacing())
    assert images.case_memory_bytes(folder / os.fsdecode(name)) > CT.nbytes
    assert label_names(folder / os.fsdecode(name)) == {}


def test_stems():
    from pathlib import Path

    for name in ("case0.seg.nrrd", "case0.NII.GZ", "case0.nii", "case0.Mha", "case0.gipl"):
        assert stem(Path(name)) == "case0"


# --- damage


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


DAMAGED = {  # how, the words, and whether it is damaged
    "cut, packed": (lambda p: cut(write(CT, p / "a.nii.gz")), "it is damaged", True),
    "cut, packed, in capitals": (
        lambda p: cut(write(CT, p / "b.nii.gz").rename(p / "a.NII.GZ")),
        "it is damaged",
        True,
    ),
    "cut": (lambda p: cut(write(CT, p / "a.nii")), "it ends after", True),
    "cut, called packed": (lambda p: cut(write(CT, p / "b.nii").rename(p / "a.nii.gz")), "it ends after", True),
    "text": (lambda p: text(p / "a.nii.gz"), "damaged, or not a NIfTI file.*begins with b'<html>", True),
    "NaN": (lambda p: write(np.where(CT > 90, np.nan, CT).astype(np.float32), p / "a.nii.gz"), "voxels are NaN", False),
    "NaN, in capitals": (
        lambda p: write(np.where(CT > 90, np.nan, CT).astype(np.float32), p / "b.nii.gz").rename(p / "a.NII.GZ"),
        "voxels are NaN",
        False,
    ),
    "NIfTI-2": (lambda p: nifti2(p / "a.nii.gz"), "is NIfTI-2.*Save it as NIfTI-1", False),
    "hidden": (lambda p: text(p / "._a.nii.gz"), "is a hidden file of macOS, not the volume a.nii.gz", False),
}


def text(path):
    path.write_text("<html>404 not found</html>")
    return path


def nifti2(path):
    nibabel.save(nibabel.Nifti2Image(CT.T, np.diag([-0.7, -0.8, 2.5, 1])), path)
    return path


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_is_said_of_damaged_files_alone(tmp_path, name):
    make, message, is_damaged = DAMAGED[name]
    with pytest.raises(UserError, match=f"(?s){message}") as caught:
        read_volume(make(tmp_path))
    assert ("Copy or download it again" in str(caught.value)) == is_damaged


def test_what_hangs_behind_a_whole_image_is_no_damage(tmp_path):
    path = write(CT, tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes() + b"rubbish")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path).image), CT)


def test_a_full_disk_is_said_only_where_there_is_one(tmp_path, monkeypatch):
    with pytest.raises(images.WriteError, match=r"(?s)could not be written: .*Nothing incomplete") as caught:
        write_volume(sitk.Image([4, 4, 4], sitk.sitkComplexFloat64), tmp_path / "a.mha.png")
    assert "disk full" not in str(caught.value) and not list(tmp_path.iterdir())
    monkeypatch.setattr(images, "why_no_bytes", lambda folder: "No space left on device")
    with pytest.raises(images.WriteError, match=r"No space left on device\. Is the disk full"):
        write_volume(sitk.Image([4, 4, 4], sitk.sitkComplexFloat64), tmp_path / "a.mha.png")


# --- folders


def test_a_folder_of_volumes_is_named_as_one(tmp_path):
    for name in ("a_0000.nii.gz", "b_0000.NII.GZ"):
        write(CT, tmp_path / "imagesTs/x.nii.gz").rename(tmp_path / "imagesTs" / name)
        (tmp_path / "imagesTs" / f"._{name}").write_bytes(bytes(200))
    with pytest.raises(UserError, match=r"contains 2 volumes and no DICOM series.*imagesTs/\*\.nii\.gz"):
        read_ct(tmp_path / "imagesTs")


def raw_dataset(folder):
    write(CT, folder / "imagesTr/a_0000.nii.gz")
    write(label_array(), folder / "labelsTr/a.nii.gz")
    labels = {"background": 0, "liver": 1, "tumor": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_check_names_hidden_files_and_counts_none(tmp_path, livseg):
    folder = raw_dataset(tmp_path / "Dataset601_X")
    for name in ("imagesTr/._a_0000.nii.gz", "labelsTr/._a.nii.gz"):
        (folder / name).write_bytes(bytes(200))
    status, printed = livseg("check", folder, "--all")
    assert status == 1 and printed.count("is a hidden file of macOS") == 2
    assert "numTraining" not in printed and "export the file again" not in printed


@pytest.mark.parametrize("name", ["origin NaN", "sform twice pixdim", "scl_inter NaN"])
def test_check_and_convert_and_align_say_what_the_reader_says(tmp_path, livseg, name):
    fields, message = HEADERS[name]
    folder = raw_dataset(tmp_path / "Dataset601_X")
    path = patched(folder / "imagesTr/a_0000.nii.gz", **fields)
    status, printed = livseg("check", folder)
    assert re.search(message.removeprefix(NOTED), printed, re.DOTALL)
    assert status == (0 if message.startswith(NOTED) else 1)
    (tmp_path / "own").mkdir()
    for part, source in (("images", path.parent), ("labels", folder / "labelsTr")):
        shutil.copytree(source, tmp_path / "own" / part)
    status, printed = livseg(
        "convert", "folder", tmp_path / "own", "--id", 5, "--out", tmp_path / "raw", "--workers", 1
    )
    assert re.search(message.removeprefix(NOTED), printed, re.DOTALL)
    if message.startswith(NOTED):
        found = tmp_path / "raw/Dataset005_Liver/imagesTr/a_0000.nii.gz"
        assert not found.is_symlink()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(found))), CT)
        return
    status, printed = livseg("align", path, folder / "imagesTr/a_0000.nii.gz", "-o", tmp_path / "aligned")
    assert status == 1 and re.search(message, printed, re.DOTALL)


def test_an_output_that_looks_like_a_file(tmp_path, livseg):
    path = write(CT, tmp_path / "ct.nii.gz")
    status, printed = livseg("segment", path, "-m", tmp_path, "-o", tmp_path / "seg.nii.gz")
    assert status == 1 and "seg.nii.gz is a folder, but its name looks like that of a file" in printed
    assert not (tmp_path / "seg.nii.gz").exists()
