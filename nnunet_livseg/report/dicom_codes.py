"""The codes and colors that DICOM SEG and SR use, each from the standard's own context groups (PS3.16)."""

from typing import NamedTuple

from nnunet_livseg import __version__
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.patient.segmentation import Provenance

NAME = "nnunet_livseg"


class Concept(NamedTuple):
    """A coded concept: value, coding scheme, meaning."""

    value: str
    scheme: str
    meaning: str

    @property
    def code(self):
        """The same for pydicom and highdicom."""
        from pydicom.sr.coding import Code

        return Code(*self)


class Property(NamedTuple):
    """What a segment shows: category (CID 7150), type (CID 7151), where it lies, color as red, green, blue."""

    category: Concept
    type: Concept
    site: Concept | None
    color: tuple[int, int, int]


ANATOMY = Concept("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Concept("85756007", "SCT", "Tissue")
LIVER_CODE = Concept("10200004", "SCT", "Liver")
NEOPLASM = Concept("108369006", "SCT", "Neoplasm")

PROPERTIES = {
    LIVER: Property(ANATOMY, LIVER_CODE, None, (221, 130, 101)),
    TUMOR: Property(ABNORMAL, NEOPLASM, LIVER_CODE, (255, 214, 10)),
}
OTHER = Property(TISSUE, TISSUE, None, (86, 180, 233))  # any further structure of a model; its name is the label

VOLUME = Concept("118565006", "SCT", "Volume")  # CID 7472
DIAMETER = Concept("81827009", "SCT", "Diameter")  # CID 7470
LONG_AXIS = Concept("103339001", "SCT", "Long axis")  # CID 7470; RECIST's longest diameter within a slice
ATTENUATION = Concept("112031", "DCM", "Attenuation Coefficient")  # CID 7469
LESION_COUNT = Concept("246206008", "SCT", "Number of lesions")
MEAN = Concept("373098007", "SCT", "Mean")  # CID 7464
DEVIATION = Concept("386136009", "SCT", "Standard Deviation")  # CID 7464
MAXIMUM = Concept("56851009", "SCT", "Maximum")  # CID 7464
CUBIC_CENTIMETER = Concept("cm3", "UCUM", "cubic centimeter")  # CID 7462 has no ml; 1 cm3 is 1 ml
MILLIMETER = Concept("mm", "UCUM", "mm")
HOUNSFIELD = Concept("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = Concept("1", "UCUM", "no units")

PROCEDURE = Concept("363679005", "SCT", "Imaging procedure")  # CID 100
DEVICE = Concept("121007", "DCM", "Device")  # CID 270
INTELLIGENCE = Concept("123110", "DCM", "Artificial Intelligence")  # CID 7162


def property_of(structure: str) -> Property:
    return PROPERTIES.get(structure, OTHER)


def parameters(provenance: Provenance) -> dict[str, str]:
    """How the algorithm was run, for people; in ASCII, which every character set contains."""
    said = {
        "model": provenance.model,
        "folds": " ".join(provenance.folds),
        "checkpoint": provenance.checkpoint,
        "quality": provenance.quality,
        **provenance.settings,
        **provenance.versions,
    }
    return {ascii_only(key): ascii_only(value) for key, value in said.items()}


def ascii_only(text: str) -> str:
    return str(text).encode("ascii", "replace").decode()


def equipment() -> dict[str, str]:
    """Who made the object, as highdicom's constructors take it."""
    return {
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": __version__,
        "device_serial_number": __version__,  # required, and software has none
        "content_qualification": "RESEARCH",
    }
