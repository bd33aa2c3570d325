"""THE TABLE: every network that this package brings, one row each. Trainers, plans, commands, docs and tests derive
from it. Importing it imports no torch.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.rows import dpcnet, mfcnet, mpunet, rivals, sam_urim, sfan
from nnunet_livseg.rows.schema import Paper, Preset, Variant

__all__ = [
    "OWN",
    "VARIANTS",
    "Paper",
    "Preset",
    "Variant",
    "find_variant",
    "is_installed",
    "require_installed",
    "require_options",
]

VARIANTS: tuple[Variant, ...] = (
    *dpcnet.ROWS,
    *sfan.ROWS,
    *mpunet.ROWS,
    *mfcnet.ROWS,
    *sam_urim.ROWS,
    *rivals.ROWS,
)

# a network of the user's: no row of the table, for it is different in every plans file
OWN = Variant(
    "own",
    "LivSegTrainer",
    "nnunet_livseg.networks.own_network.OwnNetwork",
    Paper("own", "a network of yours", "docs/your_network.md"),
    "no published result",
)


def find_variant(name: str) -> Variant:
    """The row with this name or trainer name, in any case.

    Raises:
        UserError: There is none; the message names close ones.
    """
    by_name = {key.lower(): row for row in VARIANTS for key in (row.name, row.trainer)}
    if name.lower() not in by_name:
        known = [key for row in VARIANTS for key in (row.name, row.trainer)]
        raise UserError(f"there is no variant {name!r}.{did_you_mean(name, known)}\n  livseg list shows all of them.")
    return by_name[name.lower()]


def is_installed(variant: Variant) -> bool:
    """Whether the additional library that the variant's network needs is installed."""
    return not variant.extra or find_spec(variant.extra) is not None


def require_installed(variant: Variant) -> None:
    """Reject a row whose library is not installed.

    Raises:
        UserError: The message says what to install.
    """
    if not is_installed(variant):
        raise UserError(
            f"{variant.trainer} needs the library {variant.extra}, which is not installed."
            f"\n  Install it in the environment that trains and predicts: pip install 'nnunet-livseg[{variant.extra}]'"
        )


def require_options(variant: Variant, options: Mapping[str, Any]) -> None:
    """Reject options that the variant's network does not have.

    Raises:
        UserError: There is one; the message names close ones.
    """
    if not options:
        return
    module, _, name = variant.network.rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "deep_supervision"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UserError(
            f"the network of {variant.name} has no option {unknown[0]!r}.{did_you_mean(unknown[0], known)}"
            f"\n  It has {', '.join(known)}."
        )
