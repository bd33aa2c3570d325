"""Tells nnU-Net at interpreter start where our trainers are, and has its commands show our messages as ours do.

nnU-Net searches the folders named in ``nnUNet_extTrainer``. The start-up files of the wheel
(``nnunet_livseg_startup.pth``, and ``.start`` for Python 3.18 on, PEP 829) call ``register`` in every Python process,
so this module imports next to nothing and never raises.
"""

import os
import sys

VARIABLE = "nnUNet_extTrainer"
OPT_OUT = "LIVSEG_NO_AUTOREGISTER"


def discovery_folder() -> str:
    """Folder with the one module that nnU-Net's trainer search imports."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "discovery")  # noqa: PTH118, PTH100, PTH120 - pathlib costs start-up time


def with_discovery_folder(value: str | None) -> str:
    """The value of ``nnUNet_extTrainer`` with our folder appended once; what the user has set stays in front."""
    folders = [folder for folder in (value or "").split(os.pathsep) if folder]
    if discovery_folder() not in folders:
        folders.append(discovery_folder())
    return os.pathsep.join(folders)


def is_nnunet_command(arguments: list[str]) -> bool:
    """Whether an interpreter that is started with ``arguments`` runs one of nnU-Net's commands or their modules."""
    program = next((text for text in arguments[1:] if not text.startswith("-")), "")
    return os.path.basename(program).startswith("nnUNetv2_") or program.startswith("nnunetv2.")  # noqa: PTH119


def show_messages_alone() -> None:
    """Let a ``UserError`` that ends this process be shown without the traceback; all other errors keep theirs."""
    usual = sys.excepthook

    def show(kind: type, error: BaseException, place: object) -> None:
        errors = sys.modules.get("nnunet_livseg.core.errors")
        if errors is None or not isinstance(error, errors.UserError):
            usual(kind, error, place)
            return
        sys.stdout.flush()  # what nnU-Net has printed comes first, also in one log of both streams
        print(f"\nlivseg: {error}", file=sys.stderr)

    sys.excepthook = show


def register() -> None:
    """Append the discovery folder to ``nnUNet_extTrainer`` in this process and in its children."""
    try:
        if os.environ.get(OPT_OUT) != "1":
            os.environ[VARIABLE] = with_discovery_folder(os.environ.get(VARIABLE))
            if is_nnunet_command(sys.orig_argv):
                show_messages_alone()
    except Exception:  # an interpreter must start whatever happens here; `livseg doctor` reports what is missing
        pass
