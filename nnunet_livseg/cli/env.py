"""print the line that tells nnU-Net where our trainers are, for sites that forbid start-up files

Installing the package is normally all the set-up. Where start-up files are not run (LIVSEG_NO_AUTOREGISTER=1, pip's
--target, some clusters), put this into the shell:  eval "$(livseg env)"
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``livseg env`` takes no arguments."""


def run(args: argparse.Namespace) -> None:
    """Print the export line."""
    import os
    import shlex

    from nnunet_livseg.startup import VARIABLE, with_discovery_folder

    print(f"export {VARIABLE}={shlex.quote(with_discovery_folder(os.environ.get(VARIABLE)))}")
