"""Whether a command may write a folder: one answer for all commands."""

import sys

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.output_folder import RunRecord, require_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An input with one case, a folder of somebody else, a finished output, one of macOS, and a file."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "input/case.nii.gz",
        "others/notes.txt",
        "ours/record.json",
        "ours/notes.txt",
        "mac/.DS_Store",
        "file",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("input")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("file", {}, "file cannot be a folder, because file is a file"),
        ("file/a/b", {}, "because file is a file.\n  Choose another folder."),
        ("seg.nii.gz", {}, "(.nii.gz).\n  Name a folder: seg"),
        ("input", {"inputs": ["input"]}, "would lie among the files of the input input, or replace it"),
        ("link/deep", {"inputs": ["input"]}, "would lie among"),
        ("input", {"inputs": ["link/case.nii.gz"]}, "of the input case.nii.gz"),
        ("input", {"inputs": ["input/case.nii.gz"], "writes": ["case_*.nii.gz", "ca*"]}, "or replace it"),
        ("others", {"record": "record.json", "remedy": "Go"}, "(record.json is missing), so it stays as it is.\n  Go"),
        pytest.param(
            "/proc/self/a", {}, "no file can be made in /proc/self/a (",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, which takes no files")),
    ],
)  # fmt: skip
def test_what_is_refused(place, folder, options, message):
    before = sorted(place.rglob("*"))
    with pytest.raises(UserError) as refused:
        require_folder(folder, **options)
    assert message in str(refused.value)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("new/deep", {"inputs": ["input"], "record": "record.json"}),
        ("input-2", {"inputs": ["input"]}),
        ("input", {"inputs": ["input/case.nii.gz"], "writes": ["case_*.nii.gz"]}),
        ("ours", {"record": "record.json"}),
        ("mac", {"record": "record.json"}),
        ("others", {}),
    ],
)
def test_what_is_allowed(place, folder, options):
    before = sorted(place.rglob("*"))
    assert str(require_folder(folder, **options)) == folder
    assert sorted(place.rglob("*")) == before


def open_record(folder, **settings):
    return RunRecord.open(folder / "run.json", {"size": (1, 2), **settings}, key="done", remedy="Delete it.")


def test_a_record_is_whole_after_each_result_and_knows_other_settings(tmp_path):
    record = open_record(tmp_path)
    assert not record.path.exists()
    record.add("a", [1])
    again = open_record(tmp_path)
    assert again.entries == {"a": [1]} and again.differing({"size": (1, 2)}) == []
    assert again.differing({"size": (1, 3), "mode": "mask"}) == ["size", "mode"]


def test_a_result_is_done_while_its_files_are_there(tmp_path):
    record, file = open_record(tmp_path), tmp_path / "a.nii.gz"
    file.touch()
    assert not record.is_done("a", [file])
    record.add("a", {})
    assert record.is_done("a", [file])
    file.unlink()
    assert not record.is_done("a", [file])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("{", "line 1"), ('{"size": 1, "done": []}', "done is no object"), ('{"done": {}}', "no 'size'")],
)
def test_a_damaged_record_is_refused_with_the_remedy(tmp_path, text, wrong):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=rf"run.json is damaged: .*{wrong}(.|\n)*Delete it\.$"):
        open_record(tmp_path)
