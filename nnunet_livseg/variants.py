"""THE TABLE: every network that this package brings, one row each. Trainers, plans, commands, docs and tests derive
from it. Importing it imports no torch.
"""

from nnunet_livseg.errors import UserError
from nnunet_livseg.names import did_you_mean
from nnunet_livseg.rows import dpcnet, mfcnet, mpunet, sam_urim, sfan
from nnunet_livseg.rows.schema import Paper, Preset, Variant

__all__ = ["VARIANTS", "Paper", "Preset", "Variant", "find_variant"]

VARIANTS: tuple[Variant, ...] = (*dpcnet.ROWS, *sfan.ROWS, *mpunet.ROWS, *mfcnet.ROWS, *sam_urim.ROWS)


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
