"""train and compare many variants: jobs on this machine or Slurm, then one report

new       writes a study file to start from. A row is a variant, as livseg list names it.
run       prepares the datasets, trains what is missing, and writes the report. The same command resumes. With a table
          [slurm] in the file, it submits the jobs (extra slurm).
status    lists the jobs. What was trained by hand counts.
report    writes tables and a page about what is finished.
sbatch    writes plain job scripts for Slurm, and submit.sh, which needs no Python.
job       runs one job here; all engines call it.

examples:
  livseg study new study.toml
  livseg study run study.toml
  livseg study status study.toml
  livseg study report study.toml --latex
"""

import argparse
from pathlib import Path

from nnunet_livseg.cli.shared_options import DONE_BUT, add, put_json
from nnunet_livseg.core.names import shell_path

STEP = "plan and train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of all steps."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="new|run|status|report|sbatch|job")
    new = steps.add_parser("new", help="write a study file to start from")
    run = steps.add_parser("run", help="do what is missing, then write the report")
    status = steps.add_parser("status", help="list all jobs and how far they are")
    report = steps.add_parser("report", help="write tables and a page about what is finished")
    sbatch = steps.add_parser("sbatch", help="write job scripts for Slurm")
    job = steps.add_parser("job", help="run one job here")
    for step in (new, run, status, report, sbatch, job):
        step.add_argument("file", type=Path, metavar="FILE", help="study file, such as study.toml")
    add(new, "dataset", default="901")
    new.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME",
        help="variants to train, the baseline first (default: dpcnet-unet dpcnet)")  # fmt: skip
    add(status, "json", says="text")
    for step in (run, report):
        step.add_argument("--latex", action="store_true", help="write the tables for LaTeX too")
    job.add_argument("job", metavar="JOB", help="name of the job, as livseg study status shows it")


def run(args: argparse.Namespace) -> int | None:
    """Run the step."""
    steps = {"new": _new, "run": _run, "status": _status, "report": _report, "sbatch": _sbatch, "job": _job}
    return steps[args.step](args)


def _new(args: argparse.Namespace) -> None:
    from nnunet_livseg.study.study_file import new_study

    new_study(args.file, dataset=args.dataset, rows=args.rows)
    print(f"wrote {args.file}\nnext:\n  edit it, then: livseg study run {shell_path(args.file)}")


def _plan(args: argparse.Namespace):
    from nnunet_livseg.study.study_file import read_study
    from nnunet_livseg.study.study_jobs import plan_study

    return plan_study(read_study(args.file))


def _status(args: argparse.Namespace) -> None:
    from nnunet_livseg.study.slurm_engine import with_queued
    from nnunet_livseg.study.status import all_states, state_rows, status_text

    plan = _plan(args)
    states = with_queued(plan, all_states(plan))
    if args.json:
        put_json(args.json, state_rows(states))
    if args.json != "-":
        print(status_text(plan, states))


def _job(args: argparse.Namespace) -> None:
    from nnunet_livseg.study.run_job import run_job

    run_job(_plan(args), args.job)


def _run(args: argparse.Namespace) -> int | None:
    from nnunet_livseg.study.job_state import DONE
    from nnunet_livseg.study.local_engine import LocalEngine
    from nnunet_livseg.study.status import all_states, failed_text

    plan = _plan(args)
    if plan.study.slurm is not None:
        return _submit(plan)
    LocalEngine(plan).run()
    states = all_states(plan)
    print(*failed_text(plan, states), sep="\n")
    status = _write_report(plan, latex=args.latex)
    return status if all(state.word == DONE for state in states.values()) else DONE_BUT


def _report(args: argparse.Namespace) -> int:
    return _write_report(_plan(args), latex=args.latex)


def _write_report(plan, *, latex: bool) -> int:
    from nnunet_livseg.study.study_report import write_study_report

    written = write_study_report(plan, latex=latex)
    print(written.text)
    print(f"written to {plan.study.folder}")
    return DONE_BUT if written.missing else 0


def _submit(plan) -> None:
    from nnunet_livseg.study.slurm_engine import submit, with_queued
    from nnunet_livseg.study.status import all_states

    ids = submit(plan, with_queued(plan, all_states(plan)))
    print(f"submitted {len(ids)} jobs" if ids else "nothing to submit: every job is done, running or queued")
    print(f"next:\n  livseg study status {shell_path(plan.study.path)}")


def _sbatch(args: argparse.Namespace) -> None:
    from nnunet_livseg.study.slurm_scripts import write_scripts
    from nnunet_livseg.study.status import all_states

    plan = _plan(args)
    script = write_scripts(plan, all_states(plan))
    print(f"wrote {script.parent}\nnext, where sbatch is:\n  sh {shell_path(script)}")
