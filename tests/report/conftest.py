"""A small evaluated study, made once, and what every page must be."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.report import slice_viewer

from . import chromium, virtual_patient

# dicom_samples, and io_samples that it builds on; pytest's importlib mode adds no path
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "io")]

LIVER = (slice(2, 10), slice(3, 21), slice(3, 25))
LESIONS = [(slice(3, 6), slice(5, 10), slice(5, 10)), (slice(6, 9), slice(12, 18), slice(12, 20))]


def scan(*lesions):
    labels = np.zeros((12, 24, 28), dtype=np.uint8)
    labels[LIVER] = 1
    for lesion in lesions:
        labels[lesion] = 2
    return labels


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Folders ``pred``, ``other``, ``labelsTr``, ``imagesTr``; the worst case has a name that must be escaped."""
    root = tmp_path_factory.mktemp("study")
    pairs = {
        "good": (LESIONS, LESIONS),
        "half": (LESIONS, LESIONS[:1]),
        "missed <&>": (LESIONS[:1], []),
        "none": ([], []),
    }
    for case, (reference, predicted) in pairs.items():
        ct = np.random.default_rng(0).integers(-100, 200, (12, 24, 28)).astype(np.int16)
        content = {
            "labelsTr": scan(*reference),
            "pred": scan(*predicted),
            "other": scan(*predicted[:1]),
            "imagesTr": ct,
        }
        for folder, array in content.items():
            (root / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.8, 0.8, 2.5))
            name = f"{case}_0000.nii.gz" if folder == "imagesTr" else f"{case}.nii.gz"
            sitk.WriteImage(image, str(root / folder / name))
    labels = {"labels": {"background": 0, "liver": 1, "tumor": 2}}
    for folder in ("pred", "other"):
        (root / folder / "dataset.json").write_text(json.dumps(labels))
    (root / "pred" / "extra.nii.gz").write_bytes((root / "pred" / "none.nii.gz").read_bytes())
    return root


@pytest.fixture(scope="session")
def result(study):
    return evaluate_folder(study / "pred", study / "labelsTr", out=study / "out", workers=1)


VOID = {"meta"}
DATA = r'<script type="application/json" id="slice-data">[^<]*</script>'


class Checker(HTMLParser):
    """Notes tags that are not closed in order, and everything a page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.fetched, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href") and not v.startswith(("data:", "#"))]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def _check(html):
    """The text of a page that is whole and needs nothing but itself; its only script is ours, at the end."""
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '" in html
    html, n_data = re.subn(DATA, "", html)
    ours = f"<script>{slice_viewer.script()}</script>\n</body>"
    assert html.count(ours) == n_data <= 1
    html = html.replace(ours, "</body>")
    checker = Checker()
    checker.feed(html)
    assert checker.wrong == []
    assert checker.open == []
    assert checker.fetched == []
    plain = re.sub(r"base64,[^\"]+", "", html)  # any three letters occur in pictures
    assert "<script" not in plain
    assert "NaN" not in plain.replace("NaN)", "")
    assert not re.search(r"url\(|@import|[\"'(=]//", plain)
    assert set(re.findall(r"https?://[^\"' <]*", plain)) <= {"http://www.w3.org/2000/svg"}
    return " ".join(checker.text)


@pytest.fixture(scope="session")
def check():
    return _check


@pytest.fixture(scope="session")
def upright():
    image, labels = virtual_patient.scan()
    certain = np.where(sitk.GetArrayViewFromImage(labels) == 2, 0.75, 0).astype(np.float32)
    return virtual_patient.segmented(image, labels, probability=certain)


@pytest.fixture(scope="module")
def browser():
    if chromium.program() is None:
        pytest.skip(f"no Chromium here: none of {', '.join(chromium.NAMES)} is installed")
    with chromium.Browser() as found:
        yield found
