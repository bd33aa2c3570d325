"""Devices that networks run on."""

import torch

from nnunet_livseg.core.errors import UserError


def best_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def require_device(device: str) -> None:
    """Reject a device that this machine does not have."""
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    try:
        kind = torch.device(device).type
    except RuntimeError:  # no such name
        kind = device
    if not here.get(kind, False):
        raise UserError(
            f"there is no device {device} here that torch {torch.__version__} can use. Omit it, or use cpu."
        )
