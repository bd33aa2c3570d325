"""Whether dist/ holds one complete wheel and one complete sdist: python .ci/check_dist.py [FOLDER]

Compares with the files that git tracks, so run it in a checkout.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LARGEST_WHEEL_MB = 8
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".dockerignore")
AT_THE_TOP = "nnunet_livseg/discovery/site-packages/"  # files that the wheel installs into site-packages itself


def main(folder: Path) -> None:
    """End with a message where something is missing or too large."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    listing = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    tracked = listing.stdout.splitlines()

    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {path.removeprefix(AT_THE_TOP) for path in tracked if path.startswith("nnunet_livseg/")}
    complain(wheel, wanted - packed)
    megabytes = wheel.stat().st_size / 1e6
    if megabytes > LARGEST_WHEEL_MB:
        sys.exit(f"{wheel.name} has {megabytes:.1f} MB, more than {LARGEST_WHEEL_MB}")

    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    complain(sdist, {path for path in tracked if not path.startswith(NOT_IN_SDIST)} - packed)
    print(f"{wheel.name} ({megabytes:.1f} MB) and {sdist.name} ({sdist.stat().st_size / 1e6:.1f} MB) are complete")


def complain(archive: Path, missing: set[str]) -> None:
    """End if files are missing."""
    if missing:
        sys.exit(f"{archive.name} lacks {len(missing)} files: {', '.join(sorted(missing)[:10])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "dist")
