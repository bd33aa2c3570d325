"""Checkpoint files: whole at any moment, and the newest is the one that ``--c`` continues."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, remove_leftovers

LATEST, BEST, FINAL = "checkpoint_latest.pth", "checkpoint_best.pth", "checkpoint_final.pth"  # nnU-Net's names
TO_BE_CONTINUED = 75  # exit status of a training that --c continues: EX_TEMPFAIL of sysexits.h, "try again later"


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
            "\n  The previous checkpoint is untouched. Free space or correct the permissions, then continue with --c."
        ) from error
    if path.name == BEST:
        _name_latest(path)


@contextmanager
def fitting_checkpoint(path: Path, trainer: Any) -> Iterator[None]:
    """While a checkpoint is loaded into ``trainer``: where it does not fit, one message in place of a list of tensors.

    Raises:
        UserError: The checkpoint is damaged, or of another network or optimizer than that of the plans.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
        text = (str(error).strip() or "it ends early").splitlines()[0]
        if "out of memory" in text:
            raise
        if "loading state_dict" in text:
            raise UserError(_other_plans(path, trainer, "network (stages, features or labels)")) from error
        if "parameter group" in text:
            raise UserError(_other_plans(path, trainer, "optimizer")) from error
        raise UserError(
            f"{path} is damaged, or is not a checkpoint of this trainer ({type(error).__name__}: {text})."
            "\n  Copy another checkpoint of its folder to this name and continue, or train again without --c."
        ) from error
    # torch takes the saved settings of another kind of optimizer, which then fails at its first step
    if {"momentum", "betas"} & set(trainer.optimizer.defaults) - set(trainer.optimizer.param_groups[0]):
        raise UserError(_other_plans(path, trainer, "optimizer"))


def _other_plans(path: Path, trainer: Any, what: str) -> str:
    name, folder = trainer.plans_manager.plans_name, Path(trainer.output_folder_base)
    return (
        f"{path} has another {what} than the plans {name}, so the training cannot continue from it."
        f"\n  To continue it, restore its plans: copy {folder / 'plans.json'} to {name}.json in nnUNet_preprocessed."
        f"\n  To train with the new plans, move {path.parent} away and omit --c."
    )


def _name_latest(best: Path) -> None:
    """``--c`` reads the latest checkpoint before the best: the file of a new best gets both names."""
    latest = best.with_name(LATEST)
    try:
        with atomic_path(latest) as temporary:
            temporary.unlink()
            temporary.hardlink_to(best)
    except OSError:  # a file system without hard links: where there is no latest, --c reads the best
        latest.unlink(missing_ok=True)
