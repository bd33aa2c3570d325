"""Tables as people and spreadsheets save them."""

import pytest

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.tables import read_csv

ROWS = [{"image": "i.nii", "label": "l.nii"}]


@pytest.mark.parametrize(
    "content",
    [
        b"image,label\ni.nii,l.nii\n",
        b"image,label\ni.nii,l.nii,\n",  # a trailing comma
        b"image,label,,\ni.nii,l.nii,,\n,,,\n,,,\n",  # empty columns and rows
        b"image;label\ni.nii;l.nii\n",
        b"sep=;\r\nimage;label\r\ni.nii;l.nii\r\n",
        b"image\tlabel\ni.nii\tl.nii\n",
        b"\n\nimage , label\n\n i.nii , l.nii \n",
        b'"image","label"\r\n"i.nii","l.nii"\r\n',
        b"\xef\xbb\xbfimage,label\ri.nii,l.nii\r",
        "image\tlabel\ni.nii\tl.nii\n".encode("utf-16"),
        b"Image,LABEL\ni.nii,l.nii",
    ],
)
def test_one_table_in_many_spellings(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    found = read_csv(tmp_path / "t.csv", required=("image", "label"), known=())
    assert (found.columns, [row.values for row in found.rows]) == (["image", "label"], ROWS)


def test_lines_are_those_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text('sep=;\n\na;b\n1;"x\ny"\n\n2;"he said ""no"""\n3\n')
    assert [(row.line, row.values) for row in read_csv(tmp_path / "t.csv").rows] == [
        (4, {"a": "1", "b": "x\ny"}),
        (7, {"a": "2", "b": 'he said "no"'}),
        (8, {"a": "3", "b": ""}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b",,\n", "is empty"),
        (b"image,label\ni,l,x\n", r"line 2: has more fields than the header \(3 and 2\)"),
        (b"image,label,\ni,l,x\n", "line 2: column 3 contains a value, but has no name"),
        (b"image,label,image\ni,l,x\n", "two columns 'image'"),
        (
            b"image,labels\ni,l\n",
            "needs the columns image and label; it has: image, labels.\n  Rename a column to label, or add it",
        ),
        (b'image,label\ni,l\n"j,m\n', r"line 3: the quotes do not pair"),
        (b"PK\x03\x04\xff\xff", "is a workbook of a spreadsheet"),
        ("image,label\nLäber,l\n".encode("latin-1"), r"line 2: is not a text table \(UTF-8\)"),
        (b"image,label\ni,\0\n", "is not a text table"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_such_table(tmp_path, content, message):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "t.csv", required=("image", "label"))
