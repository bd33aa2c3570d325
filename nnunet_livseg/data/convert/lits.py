"""LiTS: ``volume-N.nii`` with ``segmentation-N.nii``; ``test-volume-N.nii`` has no published label.

Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), arXiv:1901.04056. Cases 28 to 47 are 3D-IRCADb-01, and MSD
Task03 is LiTS under other names, so none of the three may be used to test a network trained on another.
"""

import re
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.data.convert.source_cases import FileVolume, SourceCase, SourceDataset

_NAME = re.compile(r"(test-volume|volume|segmentation)-(\d+)\.nii(\.gz)?", re.IGNORECASE)


def find(source: Path) -> SourceDataset:
    """Find LiTS cases anywhere under ``source`` (the batches may lie in folders of their own).

    Raises:
        UserError: No volumes, a volume without its segmentation or the other way round, or a number twice.
    """
    found: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}, "test-volume": {}}
    for path in sorted(source.rglob("*")):
        match = _NAME.fullmatch(path.name)
        if not match or not path.is_file():
            continue
        kind, number = match[1].lower(), int(match[2])
        if number in found[kind]:
            raise UserError(f"LiTS {kind} {number} is there twice: {found[kind][number]} and {path}. Remove one.")
        found[kind][number] = path
    volumes, segmentations = found["volume"], found["segmentation"]
    if not volumes:
        raise UserError(
            f"{source} contains no LiTS volumes: expected volume-0.nii, segmentation-0.nii, ... in it or in its"
            " folders.\n  For images and labels with other names use: livseg convert folder"
        )
    for numbers, paths, missing in ((volumes, segmentations, "segmentation"), (segmentations, volumes, "volume")):
        lonely = sorted(set(numbers) - set(paths))
        if lonely:
            raise UserError(
                f"{numbers[lonely[0]]} has no {missing}-{lonely[0]}.nii beside it"
                + (f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else "")
                + ". Copy the missing files, or move these away."
            )
    cases = [
        SourceCase(f"lits_{n:03d}", f"lits_{n:03d}", FileVolume(volumes[n]), FileVolume(segmentations[n]))
        for n in sorted(volumes)
    ]
    for n, path in sorted(found["test-volume"].items()):
        cases.append(SourceCase(f"litstest_{n:03d}", f"litstest_{n:03d}", FileVolume(path), None, test=True))
    return SourceDataset(
        cases,
        "LiTS",
        "LiTS, Liver Tumor Segmentation Benchmark (Bilic et al., arXiv:1901.04056)",
        "CC BY-NC-ND 4.0",
        remarks=(
            "LiTS publishes no patient table: each volume is taken as one patient.",
            "LiTS 28 to 47 are 3D-IRCADb-01, and MSD Task03 is LiTS: never test a model on one if it was trained on"
            " another.",
        ),
    )
