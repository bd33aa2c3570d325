"""The options of an evaluation: one frozen record, stored with every result."""

from dataclasses import asdict, dataclass

from nnunet_livseg.core.errors import UserError

MODES = ("default", "lits")
NEIGHBORS = (6, 18, 26)  # in 2D: 6 means the 4 edge neighbors, 18 and 26 mean all 8


@dataclass(frozen=True)
class Options:
    """Choices that change numbers; the defaults are the package's definitions (docs/reference/metrics.md).

    Args:
        mode: ``default``, or ``lits`` for the 2017 LiTS scorer with its oddities.
        surface_connectivity: Neighborhood (6, 18 or 26) of the erosion whose remainder is the surface.
        lesion_connectivity: Neighborhood (6, 18 or 26) that holds a lesion together.
        hd95: ``max`` of the two directed 95th percentiles, or the percentile of the ``pooled`` distances.
        nsd: ``area``: surface elements weighted by area (Nikolov et al.); ``voxels``: share of surface voxels.
        tolerances: Tolerances of the surface Dice, in mm (pixels for images without a spacing).
        worst: ``None`` leaves infinite distances infinite; ``diagonal`` puts the image diagonal in their place.
        diameter_edges: Borders of the lesion strata by longest diameter, in mm (or pixels).
        resample: Bring a prediction on another grid to the reference's grid (nearest neighbor).
        slices: Also score every axial slice that holds tumor on its own, in pixels (MFCNet).

    Raises:
        UserError: A value is outside its list.
    """

    mode: str = "default"
    surface_connectivity: int | None = None
    lesion_connectivity: int = 6
    hd95: str = "max"
    nsd: str = "area"
    tolerances: tuple[float, ...] = (2.0,)
    worst: str | None = None
    diameter_edges: tuple[float, ...] = (10.0, 20.0)
    resample: bool = False
    slices: bool = False

    def __post_init__(self) -> None:
        if self.surface_connectivity is None:
            object.__setattr__(self, "surface_connectivity", 18 if self.mode == "lits" else 6)
        object.__setattr__(self, "tolerances", tuple(float(value) for value in self.tolerances))
        object.__setattr__(self, "diameter_edges", tuple(float(value) for value in self.diameter_edges))
        _one_of("mode", self.mode, MODES)
        _one_of("surface_connectivity", self.surface_connectivity, NEIGHBORS)
        _one_of("lesion_connectivity", self.lesion_connectivity, NEIGHBORS)
        _one_of("hd95", self.hd95, ("max", "pooled"))
        _one_of("nsd", self.nsd, ("area", "voxels"))
        _one_of("worst", self.worst, (None, "diagonal"))
        if any(value < 0 for value in self.tolerances):
            raise UserError(f"tolerances of the surface Dice must not be negative, but are {self.tolerances}")
        if list(self.diameter_edges) != sorted(set(self.diameter_edges)):
            raise UserError(f"the borders of the diameter strata must increase, but are {self.diameter_edges}")
        if self.mode == "lits" and (self.surface_connectivity, self.lesion_connectivity) != (18, 6):
            raise UserError(
                "mode lits is the 2017 scorer: surfaces from the 18-neighborhood, lesions 6-connected.\n"
                "  Other neighborhoods are choices of the default mode."
            )

    def as_dict(self) -> dict:
        """The choices as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _one_of(name: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise UserError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}")
