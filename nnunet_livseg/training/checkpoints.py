"""Checkpoint files: whole at any moment, and the newest is the one that ``--c`` continues."""

from collections.abc import Callable
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, remove_leftovers

LATEST, BEST, FINAL = "checkpoint_latest.pth", "checkpoint_best.pth", "checkpoint_final.pth"  # nnU-Net's names


def write_checkpoint(path: Path, write: Callable[[str], None]) -> None:
    """Let ``write(filename)`` write a checkpoint that becomes ``path`` once complete; a new best is the latest as well.

    Raises:
        UserError: The checkpoint could not be written.
    """
    try:
        remove_leftovers(path.parent)
        with atomic_path(path) as temporary:
            write(str(temporary))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(
            f"the checkpoint {path} could not be written: {error}"
            "\n  The previous checkpoint is untouched. Free space or mend the permissions, then continue with --c."
        ) from error
    if path.name == BEST:
        _name_latest(path)


def _name_latest(best: Path) -> None:
    """``--c`` reads the latest checkpoint before the best: the file of a new best gets both names."""
    latest = best.with_name(LATEST)
    try:
        with atomic_path(latest) as temporary:
            temporary.unlink()
            temporary.hardlink_to(best)
    except OSError:  # a file system without hard links: where there is no latest, --c reads the best
        latest.unlink(missing_ok=True)
