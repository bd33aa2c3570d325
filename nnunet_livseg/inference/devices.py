"""Devices that networks run on, and a network on a CPU in less time: channels last in memory, and in bfloat16.

A processor that multiplies bfloat16 itself (AMX, AVX-512 BF16) takes a half to a quarter of the time of float32, see
docs/evidence/performance.md. Weights, and all that torch's autocast keeps, stay float32.
"""

# Shape letters: B batch, C channels, K output channels, *S patch

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


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


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; an older torch does not say, and then it is not."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def put_channels_last(network: nn.Module, *, bfloat16: bool) -> None:
    """Change ``forward`` of the network; parameters keep their names, precision and values.

    It takes and returns what it did, in float32: ``(B, C, *S)`` to ``(B, K, *S)``, or a list of outputs.

    Args:
        network: A network for a CPU.
        bfloat16: Whether convolutions and matrix products are rounded to it.
    """
    network = getattr(network, "_orig_mod", network)  # inside of torch.compile's
    forward, axes = network.forward, max(parameter.ndim for parameter in network.parameters())
    for parameter in network.parameters():
        if parameter.ndim == axes and axes in CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[axes])

    def faster(x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            outputs = forward(x.contiguous(memory_format=CHANNELS_LAST[x.ndim]))
        return [o.float() for o in outputs] if isinstance(outputs, list | tuple) else outputs.float()

    network.forward = faster


def predict_in_bfloat16(network: nn.Module) -> None:
    """The same for prediction, in bfloat16. Some maps that are one voxel deep become NaN in torch's 3D convolutions."""
    put_channels_last(network, bfloat16=True)
    keep_channels_last(network)


def keep_channels_last(network: nn.Module) -> None:
    """Let the network's instance norms leave the channels where they are; torch's own bring them to the front."""
    for module in network.modules():
        if isinstance(module, _INSTANCE_NORMS) and not module.track_running_stats:
            module.forward = partial(_normalized, module)


def _normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """Instance norm of ``x (B, C, *S)``, case by case."""

    def of_one(case: Tensor) -> Tensor:
        return F.batch_norm(case, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)

    return of_one(x) if len(x) == 1 else torch.cat([of_one(case[None]) for case in x])
