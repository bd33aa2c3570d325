"""Evaluation, post-processing and reports work where no torch is: importing them must not import it."""

import subprocess
import sys

MODULES = (
    *("evaluation", "evaluation.folder_evaluation", "evaluation.comparison", "evaluation.printed_tables"),
    *("report.evaluation_report", "report.comparison_report", "cli.evaluate", "cli.compare"),
    *("postprocessing.tuning", "postprocessing.postprocess_folder", "cli.postprocess"),
)


def test_no_torch_is_imported():
    names = ", ".join(f"nnunet_livseg.{name}" for name in MODULES)
    heavy = "[m for m in sys.modules if m.split('.')[0] in ('torch', 'nnunetv2')]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {names}; print({heavy})"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
