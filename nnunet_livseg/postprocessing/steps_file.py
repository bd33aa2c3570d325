"""``livseg_postprocessing.json`` in a model's folder, as it is read: the steps alone."""

import json
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.postprocessing.steps import Step, from_dict

FILE = "livseg_postprocessing.json"
SCHEMA = "nnunet_livseg.postprocessing/1"


def load_postprocessing(model_folder: str | Path) -> tuple[Step, ...]:
    """The steps that were found to help for a model; empty where none does.

    Raises:
        UserError: The model was not tuned, or the file cannot be understood.
    """
    path = Path(model_folder) / FILE
    if not path.is_file():
        raise UserError(
            f"{model_folder} has no {FILE}: nobody has tried which post-processing helps this model.\n"
            f"  Run livseg postprocess tune -m {model_folder}, or name rules yourself: livseg postprocess apply --rules"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, steps = content["schema"], content["steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}).\n  Run again: livseg postprocess tune -m {model_folder}"
        ) from None
    if schema != SCHEMA:
        raise UserError(f"{path} has the format {schema!r}, but this version reads {SCHEMA!r}.\n  Tune again.")
    return tuple(from_dict(step) for step in steps)
