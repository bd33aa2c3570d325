"""Medical Segmentation Decathlon, Task03_Liver: ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``.

Antonelli et al., The Medical Segmentation Decathlon, arXiv:2106.05735.
"""

from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.labels import LIVER, TUMOR, structures_from_labels
from nnunet_livseg.core.names import stem
from nnunet_livseg.data.convert.source_cases import FileVolume, SourceCase, SourceDataset, our_values


def find(source: Path) -> SourceDataset:
    """Find the cases that ``dataset.json`` lists, in the folder ``Task03_Liver`` or in one that holds it.

    Raises:
        UserError: No or damaged ``dataset.json``, a listed file missing, labels that are not liver and tumor.
    """
    folder = next((f for f in (source, source / "Task03_Liver") if (f / "dataset.json").is_file()), None)
    if folder is None:
        raise UserError(f"{source} contains no dataset.json. Give the unpacked folder Task03_Liver.")
    listed = _read(folder / "dataset.json")
    cases = [
        SourceCase(
            stem(image),
            stem(image),
            FileVolume(_existing(folder, entry["image"])),
            FileVolume(_existing(folder, entry["label"])),
        )
        for entry in listed["training"]
        for image in [Path(entry["image"])]
    ]
    tests = [_existing(folder, name) for name in listed.get("test", []) if (folder / name).exists()]
    cases += [SourceCase(stem(path), stem(path), FileVolume(path), None, test=True) for path in tests]
    return SourceDataset(
        cases,
        "Liver",
        "Medical Segmentation Decathlon, Task03 Liver (Antonelli et al., arXiv:2106.05735)",
        str(listed.get("licence") or "CC BY-SA 4.0"),
        label_map=_label_map(folder / "dataset.json", listed["labels"]),
        remarks=("MSD Task03 is LiTS: never test a model on one if it was trained on the other.",),
    )


def _read(path: Path) -> dict:
    listed = read_json(path, remedy="Unpack the archive again.")
    missing = [key for key in ("training", "labels") if not listed.get(key)]
    if missing:
        raise UserError(
            f"{path} has no {' and no '.join(repr(key) for key in missing)}, so it is not a Decathlon dataset.json.\n"
            "  An nnU-Net v2 raw dataset needs no conversion; for other files use: livseg convert folder"
        )
    modality = " ".join(map(str, dict(listed.get("modality") or {"0": "CT"}).values()))
    if "CT" not in modality.upper():
        raise UserError(f"{path} says the modality is {modality!r}, not CT. This is not Task03_Liver.")
    return listed


def _existing(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(
            f"{folder / 'dataset.json'} lists {name!r}, which lies outside {folder}. Give the original file."
        )
    if not path.is_file():
        raise UserError(f"{folder / 'dataset.json'} lists {name}, but {path} does not exist. Unpack the archive again.")
    return path


def _label_map(path: Path, labels: dict[str, str]) -> dict[int, int]:
    structures = structures_from_labels(labels, source=str(path))
    if not {LIVER} <= structures.values.keys() <= {LIVER, TUMOR}:
        raise UserError(
            f"{path} labels {sorted(map(str, labels.values()))}; expected liver and cancer. This is not Task03_Liver."
        )
    return our_values(structures)
