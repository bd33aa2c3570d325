"""print the shell command that lets nnU-Net find the trainers where Python start-up files do not run

Installing the package is normally all the setup. If start-up files do not run (LIVSEG_NO_AUTOREGISTER=1, pip's
--target, some clusters), put this into the shell:  eval "$(livseg env)"
"""

import argparse

STEP = "more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``livseg env`` takes no arguments."""


def run(args: argparse.Namespace) -> None:
    """Print the export line."""
    import os
    import shlex

    from nnunet_livseg.startup import VARIABLE, with_discovery_folder

    print(f"export {VARIABLE}={shlex.quote(with_discovery_folder(os.environ.get(VARIABLE)))}")
