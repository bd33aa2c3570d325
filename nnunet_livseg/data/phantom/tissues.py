"""Hounsfield units of tissues and tumors in the two phases. The table of `docs/phantom.md` is tested against this file.

Values are typical ones of a patient with normal circulation, 120 kVp: portal venous phase about 70 s after injection,
late arterial phase about 35 s. Each case shifts the enhancement of its organs by a few HU (`Tissue.spread`).

The behavior of the tumor types follows the criteria that radiologists use:

- cyst: water, no enhancement in any phase;
- FNH (focal nodular hyperplasia): bright in the arterial phase, close to the liver in the portal venous phase, with a
  central scar that is darker than both;
- hemangioma: dark with nodules at its edge that follow the blood pool, and fills from the edge inwards;
- HCC (hepatocellular carcinoma): bright in the arterial phase, washed out and with an enhancing capsule in the portal
  venous phase (the major features of LI-RADS);
- metastasis: poor in vessels (colorectal), darker than the liver, best seen in the portal venous phase, with a rim.
"""

from dataclasses import dataclass

PHASES = ("portal venous", "arterial")  # channel 0 is the primary phase


@dataclass(frozen=True)
class Tissue:
    """HU of a tissue.

    Args:
        portal: Mean HU in the portal venous phase.
        arterial: Mean HU in the late arterial phase.
        spread: Standard deviation of the mean between patients, in HU (the same shift in both phases).
        texture: Standard deviation of the structure inside the tissue, in HU, without image noise.
    """

    portal: float
    arterial: float
    spread: float = 0.0
    texture: float = 0.0


TISSUES = {
    "air": Tissue(-1000, -1000),
    "table foam": Tissue(-940, -940),
    "table shell": Tissue(-620, -620),
    "skin": Tissue(30, 25),
    "fat": Tissue(-105, -105, spread=4, texture=5),
    "muscle": Tissue(62, 57, spread=3, texture=6),
    "lung": Tissue(-840, -845, spread=20, texture=25),
    "bone cortex": Tissue(520, 520, spread=30, texture=40),
    "bone marrow": Tissue(190, 185, spread=25, texture=35),
    "disc": Tissue(85, 85, texture=6),
    "spinal canal": Tissue(32, 32, texture=4),
    "blood in arteries": Tissue(165, 330, spread=10),
    "blood in portal veins": Tissue(178, 118, spread=8),
    "blood in hepatic veins": Tissue(165, 72, spread=8),
    "blood in the vena cava": Tissue(135, 78, spread=8),
    "liver": Tissue(108, 70, spread=7, texture=4),
    "gallbladder": Tissue(10, 10, texture=2),
    "spleen": Tissue(122, 135, spread=6, texture=5),
    "pancreas": Tissue(95, 112, spread=6, texture=10),
    "kidney cortex": Tissue(190, 185, spread=8, texture=5),
    "kidney medulla": Tissue(165, 75, spread=8, texture=6),
    "stomach wall": Tissue(92, 88, spread=5, texture=6),
    "stomach content": Tissue(18, 18, texture=6),
    "bowel wall": Tissue(95, 85, spread=5, texture=6),
    "bowel content": Tissue(25, 25, texture=14),
    "faeces": Tissue(10, 10, texture=110),
    "gas": Tissue(-960, -960),
}

# Parts of tumors. A name "type" is the body of the tumor, "type: part" something inside it.
TUMOR_TISSUES = {
    "cyst": Tissue(8, 8, spread=3),
    "FNH": Tissue(122, 152, spread=4, texture=4),
    "FNH: scar": Tissue(84, 74),
    "hemangioma": Tissue(62, 44, spread=4, texture=4),
    "hemangioma: filled": Tissue(135, 44, spread=4, texture=4),
    "hemangioma: nodules": Tissue(160, 215, spread=8),
    "HCC": Tissue(82, 124, spread=4, texture=9),
    "HCC: capsule": Tissue(126, 112),
    "metastasis": Tissue(58, 46, spread=5, texture=6),
    "metastasis: rim": Tissue(84, 84, spread=4, texture=6),
}
TUMOR_TYPES = tuple(name for name in TUMOR_TISSUES if ":" not in name)

# A tumor that only the arterial phase shows: this much brighter than the liver there, equal to it in the portal phase.
ARTERIAL_ONLY_CONTRAST_HU = 60.0
