"""The attention of a case as files: NIfTI maps, a CSV of vectors, a sheet of pictures, and a table of what they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_livseg.core.files import write_json, write_text
from nnunet_livseg.core.output_folder import require_folder
from nnunet_livseg.core.tables import csv_text
from nnunet_livseg.imaging.images import write_volume
from nnunet_livseg.inference.attention_maps import AttentionMap, CaseAttention
from nnunet_livseg.inference.attention_sheet import write_sheet

FORMAT = 1
SHEET, TABLE, VECTORS, PREDICTION = "attention.png", "attention.json", "vectors.csv", "prediction.nii.gz"


def write_attention(case: CaseAttention, out: Path) -> None:
    """Write maps as NIfTI, vectors as CSV, a sheet of pictures, and a table of what every file is.

    Args:
        case: What to write.
        out: Folder; made if it is missing.

    Raises:
        UserError: The folder cannot be made, or the disk is full.
    """
    require_folder(out)
    for one in case.maps:
        if not one.is_vector:
            write_volume(case.on_image(one.values), out / f"{one.name}.nii.gz")
    write_volume(case.on_image(case.labels, labels=True), out / PREDICTION)
    if any(one.is_vector for one in case.maps):
        write_text(out / VECTORS, csv_text(_vectors(case.maps)))
    write_sheet(case, out / SHEET)
    write_json(out / TABLE, _table(case))


def _vectors(maps: Sequence[AttentionMap]) -> list[dict]:
    return [
        {"name": one.name, "level": one.level, "index": index, "value": f"{value:.6g}"}
        for one in maps
        if one.is_vector
        for index, value in enumerate(one.values)
    ]


def _table(case: CaseAttention) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "case": case.name,
        "model": case.model,
        "fold": case.fold,
        "point": {"voxel_zyx": list(case.point), "why": case.reason},
        "patch": {
            "first_voxel_zyx": [part.start for part in case.grid.box],
            "voxels_zyx": [part.stop - part.start for part in case.grid.box],
            "outside": 0,
        },
        "prediction": {"file": PREDICTION, "structures": {name: list(v) for name, v in case.structures.items()}},
        "maps": [_row(one) for one in case.maps],
    }


def _row(one: AttentionMap) -> dict[str, Any]:
    row = {
        "name": one.name,
        "file": VECTORS if one.is_vector else f"{one.name}.nii.gz",
        "title": one.title,
        "source": one.source,
        "kind": one.kind,
        "level": one.level,
        "size": list(one.values.shape),
        "min": float(one.values.min()),
        "max": float(one.values.max()),
        "mean": float(one.values.mean()),
    }
    return row | ({"phase": one.phase} if one.phase else {})
