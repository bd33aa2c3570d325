"""One patient: all layers in the order in which they are painted."""

from dataclasses import dataclass

import numpy as np

from nnunet_livseg.data.phantom import liver as liver_parts
from nnunet_livseg.data.phantom import organs, torso
from nnunet_livseg.data.phantom.layers import Layer, Textures
from nnunet_livseg.data.phantom.shapes import Shape
from nnunet_livseg.data.phantom.tissues import TISSUES


@dataclass(frozen=True)
class Patient:
    """The anatomy of one phantom, independent of any voxel grid.

    Args:
        layers: What is painted, in this order, before the tumors.
        liver: The liver before its neighbors cut into it.
        neighbors: Shapes that are painted over the liver; tumors keep away from them.
        hu: Mean HU of each tissue in (portal venous, arterial) phase, with this patient's shifts.
        textures: Random fields.
    """

    layers: list[Layer]
    liver: Shape
    neighbors: list[Shape]
    hu: dict[str, tuple[float, float]]
    textures: Textures


def make_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: body, organs, enhancement."""
    frame = torso.Torso.random(rng)
    shape = liver_parts.Liver.random(rng).shape(frame)
    hu = _enhancement(rng)
    behind = [*torso.wall(frame), *torso.lungs(frame), *torso.back_muscles(frame)]
    behind += [*torso.spine(frame), *torso.ribs(frame), *organs.mesentery(frame, rng)]
    behind += [*organs.bowel(frame, rng), *organs.stomach(frame, rng), *organs.spleen(frame, rng)]
    vessels = liver_parts.hepatic_vessels(rng)
    over = [*liver_parts.fissures(frame), *organs.kidneys(frame, rng), *liver_parts.gallbladder(frame, rng)]
    over += [*organs.pancreas(frame, rng), *organs.great_vessels(frame)]
    layers = [_layer(s, t, hu) for s, t in behind]
    layers.append(_layer(shape, "liver", hu, role="liver"))
    layers += [_layer(s, t, hu, role="in liver") for s, t in vessels]
    layers += [_layer(s, t, hu) for s, t in over]
    return Patient(layers, shape, [s for s, _ in over], hu, Textures.random(rng))


def _layer(shape: Shape, tissue: str, hu: dict[str, tuple[float, float]], *, role: str = "organ") -> Layer:
    return Layer(shape, tissue, hu[tissue], texture=TISSUES[tissue].texture, role=role)


def _enhancement(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """HU of every tissue for one patient."""
    shifts = {name: float(rng.normal(0, 1)) * tissue.spread for name, tissue in TISSUES.items()}
    return {name: (t.portal + shifts[name], t.arterial + shifts[name]) for name, t in TISSUES.items()}
