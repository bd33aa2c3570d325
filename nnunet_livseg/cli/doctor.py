"""check the installation: nnU-Net, trainers, folders, GPU, memory, workers

The exit status is 1 if something would keep a training from running, and 0 if there are only warnings.
"""

import argparse

STEP = "more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``livseg doctor`` takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print one line per finding, with the remedy under what is wrong."""
    from nnunet_livseg.diagnostics.doctor import examine

    signs = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}
    errors = False
    for finding in examine():
        errors |= finding.severity == "error"
        text, *remedies = finding.message.split("\n")
        print(f"{signs[finding.severity]}  {finding.kind:<21}{text}")
        for remedy in remedies:
            print(f"{'':32}{remedy}", flush=True)
    return int(errors)
