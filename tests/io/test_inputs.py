"""Every malformed input ends in one message or a correct result, and the page says what really happened."""

import errno
import tempfile
from pathlib import Path

import pytest
from io_samples import ct_array, dicom_slices, save_slices
from malformed import LIST, PAGE, as_segmentation, outcome, page, run


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run the whole list once; every input has its own folder."""
    found = []
    for number, one in enumerate(LIST):
        folder = tmp_path_factory.mktemp(f"input{number}")
        found.append((one, folder, *run(one, folder)))
    return found


def test_there_are_many_inputs_of_every_command(outcomes):
    assert len(LIST) >= 30
    assert len({one.name for one in LIST}) == len(LIST)
    for command in ("convert", "dicom", "align", "segment"):
        assert sum(text.startswith(f"livseg {command}: ") for _, _, status, text in outcomes if status) >= 5


def test_refusals_are_one_message_and_leave_nothing_half_written(outcomes):
    for one, folder, status, text in outcomes:
        assert status == (0 if one.works else 1), f"{one.name}: {text}"
        assert text.count("livseg ") >= (0 if one.works else 1), one.name
        assert "Traceback" not in text, one.name
        assert not list(folder.rglob(".incomplete-*")), one.name
        written = [*folder.glob("out.nii.gz"), *folder.glob("out/*"), *folder.rglob("raw/*/dataset.json")]
        assert bool(written) == one.works, f"{one.name}: {written}"


def test_segment_does_with_dicom_what_convert_does(outcomes, tmp_path):
    """The same messages, but for the command's name; and a result where there is one."""
    compared = 0
    for number, (one, _, status, text) in enumerate(outcomes):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = one.make(folder)
        if command[:2] != ["dicom", "convert"] or command[4].name != "out.nii.gz":
            continue
        found, said = outcome(as_segmentation(command, folder), folder)
        assert found == status, f"{one.name}: {said}"
        if status:
            assert said == text.replace("livseg dicom:", "livseg segment:"), one.name
        assert (folder / "out" / "measurements.json").exists() == (status == 0), one.name
        assert not list(folder.rglob(".incomplete-*")), one.name
        compared += 1
    assert compared >= 30


def test_nothing_of_an_evil_zip_lies_anywhere(outcomes):
    for one, folder, _, _ in outcomes:
        if one.name.startswith("Zip: path"):
            assert not list(folder.parent.parent.rglob("evil.dcm"))
            assert not (Path(tempfile.gettempdir()) / "evil.dcm").exists()


def test_the_page_is_fresh(outcomes):
    fresh = page([(one, status, text) for one, _, status, text in outcomes])
    assert PAGE.read_text(encoding="utf-8") == fresh, "stale; write it anew: python tests/io/malformed.py --write"


def test_an_output_without_permission_is_one_message(tmp_path, livseg, monkeypatch):
    """Permissions do not bind a test that runs as root, so the system's answer is put in its place."""
    save_slices(dicom_slices(ct_array()), tmp_path / "study")

    def denied(prefix, suffix, dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "mkstemp", denied)
    status, printed = livseg("dicom", "convert", tmp_path / "study", "-o", tmp_path / "out.nii.gz")
    assert status == 1 and f"livseg dicom: Permission denied: {tmp_path}" in printed
    assert not (tmp_path / "out.nii.gz").exists()
