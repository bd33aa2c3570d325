"""Write docs/images/report.png, the preview of a report: run ``python docs/images/report.py`` in the project's
folder. A folder named as argument gets preview and report instead.

The patient is a phantom, and the label map is its truth: no model has had a part in it.
"""

import sys
from pathlib import Path

import SimpleITK as sitk

from nnunet_livseg.data.phantom import make_case
from nnunet_livseg.patient.measure import measure
from nnunet_livseg.patient.segmentation import Provenance, Segmentation
from nnunet_livseg.report.patient_report import write_preview, write_report

STRUCTURES = {"liver": (1, 2), "tumor": (2,)}
TRUTH = Provenance("none: the phantom's truth", (), "none", "custom", {}, "cpu", 0.0, {})


def phantom() -> Segmentation:
    """A phantom as if a perfect model had segmented it."""
    case = make_case(12, (160, 288, 288), tumors=(5, 5), tumor_diameter_mm=(14, 45))
    image, labels = (sitk.GetImageFromArray(array) for array in (case.image[0], case.label))
    for found in (image, labels):
        found.SetSpacing(case.grid.spacing_mm[::-1])
        found.SetOrigin([float(mm) for mm in case.grid.origin_mm[::-1]])
    measurements, lesions = measure(image, labels, STRUCTURES)
    return Segmentation("phantom", image, labels, STRUCTURES, lesions, measurements, TRUTH)


def main() -> None:
    """The preview into the documents, everything into a folder that is named."""
    result = phantom()
    if sys.argv[1:]:
        write_report(result, Path(sys.argv[1]))
        write_preview(result, Path(sys.argv[1]))
    else:
        write_preview(result, Path(__file__).with_name("report.png"))


if __name__ == "__main__":
    main()
