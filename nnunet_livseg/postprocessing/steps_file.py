"""Read the steps of ``livseg_postprocessing.json`` in a model's folder."""

from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import shell_path
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
            f"{model_folder} has no {FILE}: postprocessing has not been tuned for this model.\n"
            f"  Run livseg postprocess tune -m {shell_path(model_folder)}, or name rules:"
            " livseg postprocess apply --steps"
        )
    remedy = f"Run again: livseg postprocess tune -m {shell_path(model_folder)}"
    content = read_json(path, keys=("schema", "steps"), remedy=remedy)
    if content["schema"] != SCHEMA:
        raise UserError(f"{path} has the format {content['schema']!r}, but this version reads {SCHEMA!r}.\n  {remedy}")
    return tuple(from_dict(step) for step in content["steps"])
