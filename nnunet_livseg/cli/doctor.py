"""check the installation: nnU-Net, trainers, folders, GPU, memory, workers

The exit status is 1 if something would keep a training from running, and 0 if there are only warnings. For a bug
report, --json adds versions, machine and settings. It replaces the home folder, the user's name and nnU-Net's folders.

example:
  livseg doctor --json
"""

import argparse

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, put_json

STEP = "more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg doctor``."""
    add(parser, "json", says="text")


def run(args: argparse.Namespace) -> int:
    """Print one line per finding, with the remedy under what is wrong, or a bug report as JSON."""
    from nnunet_livseg.diagnostics.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if args.json != STANDARD_OUTPUT:
            print(finding.as_text(), flush=True)
    if args.json:
        from nnunet_livseg.diagnostics.bug_report import bug_report

        put_json(args.json, bug_report(findings))
    return int(any(finding.severity == "error" for finding in findings))
