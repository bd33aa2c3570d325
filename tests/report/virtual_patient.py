"""A patient made of balls, scanned in any direction, and what can be read off a picture again."""

import base64
import io
import math
import re

import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.segmentation import Provenance, Segmentation

STRUCTURES = {"liver": (1, 2), "tumor": (2,)}
MADE = Provenance(
    "Dataset003_Liver/DPCNetTrainer__DPCNetPlans__3d_fullres", ("0", "1"), "checkpoint_final.pth", "standard",
    {"mirroring": "on"}, "cpu", 12.3, {"nnunetv2": "2.8.1"},
)  # fmt: skip

# LPS mm and HU: the liver lies on the right; lesion 1 in front, on the right and above lesion 2
LIVER, LIVER_MM, LIVER_HU = (-40, 0, 0), (62, 50, 55), 100
LESIONS = (((-62, -18, 20), 16, 200), ((-22, 14, -18), 10, 30))
STOMACH = (60, -10, 20)  # full of contrast medium, on the left

UPRIGHT = np.eye(3)
TURN = np.array([[math.cos(0.3), -math.sin(0.3), 0], [math.sin(0.3), math.cos(0.3), 0], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, math.cos(0.2), -math.sin(0.2)], [0, math.sin(0.2), math.cos(0.2)]])
CORONAL_SCAN = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns to the left, rows to the feet, slices to the back
DIRECTIONS = {
    "upright": UPRIGHT,
    "ras": np.diag([-1, -1, 1]),
    "head first": np.diag([1, 1, -1]) @ np.diag([1, -1, 1]),
    "oblique": TURN @ TILT,
    "oblique and flipped": TURN @ TILT @ np.diag([-1, 1, -1]),
    "coronal scan": CORONAL_SCAN,
}


def scan(direction=UPRIGHT, *, size=(70, 64, 60), spacing_mm=(3.0, 3.2, 3.5), lesions=LESIONS, center_mm=(0, 0, 0)):
    """CT and label map (2 tumor) of the virtual patient; size and spacing (x, y, z) of the image's own axes."""
    image = sitk.Image(size, sitk.sitkInt16)
    image.SetSpacing(spacing_mm)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    half = (np.array(size) - 1) * spacing_mm / 2
    image.SetOrigin((np.array(center_mm) - direction @ half).tolist())
    index = np.indices(size).reshape(3, -1)
    points = (direction @ (index * np.array(spacing_mm)[:, None]) + np.array(image.GetOrigin())[:, None]).T

    def within(center, radii):
        return (np.square((points - center) / radii).sum(axis=1) < 1).reshape(size).T

    hu = np.where(within((0, 0, 0), (110, 90, 200)), 0, -1000).astype(np.int16)
    hu[within(STOMACH, (28, 60, 28))] = 1000
    labels = within(LIVER, LIVER_MM).astype(np.uint8)
    hu[labels > 0] = LIVER_HU
    for center, radius, density in lesions:
        labels[within(center, radius)], hu[within(center, radius)] = 2, density
    found = []
    for array in (hu, labels):
        found.append(sitk.GetImageFromArray(array))
        found[-1].CopyInformation(image)
    return found


def segmented(image, labels, *, structures=STRUCTURES, name="case_001", probability=None, **more):
    measurements, lesions = measure(image, labels, structures, tumor_probability=probability, tumor_votes=probability)
    return Segmentation(name, image, labels, structures, lesions, measurements, MADE, **more)


def outline(svg, structure):
    """Corners of an outline (n, 2), (x, y) in the picture's units."""
    (path,) = re.findall(rf'<path d="([^"]+)"[^>]*data-structure="{structure}"', svg)
    return np.array(re.findall(r"([\d.-]+) ([\d.-]+)", path), dtype=float)


def middle(points):
    return (points.min(axis=0) + points.max(axis=0)) / 2


def pixels(svg):
    """The PNG of a picture, and the units per pixel (x, y)."""
    found = np.array(Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', svg)[1]))).convert("RGB"))
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    return found, np.array([width / found.shape[1], height / found.shape[0]])


def measured_lines(svg):
    """White lines, as texts (x1, y1, x2, y2)."""
    return re.findall(r'<path d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"[^>]*"#ffffff"', svg)


def numbers_in(svg):
    """Where the lesions' numbers stand, (x, y)."""
    found = re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)"[^>]*>(\d+)</text>', svg)
    return {int(text): np.array([float(x), float(y)]) for x, y, text in found}


def section(html, title):
    return re.search(rf"<h2>{title}</h2>.*?</section>", html, re.DOTALL)[0]


def figures(html):
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)
