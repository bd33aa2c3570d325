"""nnU-Net's folders, and commands in them that are timed and run once."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.core.nnunet_folders import VARIABLES

PROJECT = Path(__file__).resolve().parents[1]
TRAINERS = Path(__file__).resolve().parent / "trainers"


class Workplace:
    """nnU-Net's folders below one, with a record of every command: what is recorded is not run again.

    Args:
        folder: Everything is written below it.
        dataset: nnU-Net's name of the dataset.
        settings: What the commands depend on.

    Raises:
        UserError: The folder's record is of other settings.
    """

    def __init__(self, folder: Path, dataset: str, settings: Mapping[str, Any]) -> None:
        self.folder, self.dataset = folder, dataset
        self.raw, self.preprocessed = folder / "nnUNet_raw" / dataset, folder / "nnUNet_preprocessed" / dataset
        for name in (*VARIABLES, "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.record = folder / "commands.json"
        known = json.loads(json.dumps(settings))
        recorded = json.loads(self.record.read_text()) if self.record.exists() else {"settings": known, "steps": {}}
        if recorded["settings"] != known:
            raise UserError(
                f"{folder} contains a run with other settings: {recorded['settings']}.\n  Give another --work."
            )
        self.settings, self.steps = known, recorded["steps"]

    @classmethod
    def opened(cls, folder: Path, dataset: str, *, script: str) -> "Workplace":
        """The workplace of a run that ``script`` has made, with its settings.

        Raises:
            UserError: ``folder`` lies in the repository, or no run was made there.
        """
        require_outside(folder)
        record = folder / "commands.json"
        if not record.is_file():
            raise UserError(f"there is no commands.json in {folder}.\n  Run {script} --work {folder} first.")
        return cls(folder, dataset, json.loads(record.read_text())["settings"])

    def model(self, name: str) -> Path:
        """Where nnU-Net keeps the trainings of ``TRAINER__PLANS__CONFIGURATION``."""
        return self.folder / "nnUNet_results" / self.dataset / name

    def call(self, step: str, *command: object) -> None:
        """Run a command in the folder and note its time, unless ``step`` is done.

        Raises:
            UserError: It failed; the message shows the end of its output.
        """
        if step in self.steps:
            return
        words = [str(word) for word in command]
        print(time.strftime("%H:%M:%S"), *words, flush=True)
        log = self.folder / "logs" / f"{step.replace('/', '_')}.log"
        program, env = str(Path(sys.executable).with_name(words[0])), self._environment(words[0])
        cpu, wall = _child_cpu_seconds(), time.monotonic()
        with log.open("w") as file:
            ended = subprocess.run([program, *words[1:]], cwd=self.folder, env=env, stdout=file, stderr=file)
        if ended.returncode:
            raise UserError(f"{' '.join(words)} failed:\n{log.read_text()[-3000:]}")
        seconds = {"wall_s": time.monotonic() - wall, "cpu_s": _child_cpu_seconds() - cpu}
        shown = " ".join(words).replace(f"{self.folder}/", "").replace(f"{PROJECT}/", "")
        self.steps[step] = {"command": shown} | {name: round(value, 1) for name, value in seconds.items()}
        write_json(self.record, {"settings": self.settings, "steps": self.steps})

    def _environment(self, program: str) -> dict[str, str]:
        folders = {variable: str(self.folder / variable) for variable in VARIABLES}
        in_process = "1" if program.startswith("nnUNetv2_plan") else "0"  # nnU-Net's planner refuses 0
        single = {"nnUNet_n_proc_DA": in_process, "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
        return os.environ | folders | single | {"nnUNet_extTrainer": str(TRAINERS)}


def require_outside(work: Path) -> None:
    """Refuse a folder in the repository, where no patient's image may be written."""
    if work.resolve().is_relative_to(PROJECT):
        raise UserError(
            f"{work} lies inside the repository, where no patient's image may be written."
            "\n  Name a folder outside it: --work DIR."
        )


def link_raw(source: Path, raw: Path) -> None:
    """The raw dataset ``source`` as links in ``raw``: no image is copied, and nnU-Net writes beside, not into them."""
    if not (source / "dataset.json").is_file():
        raise UserError(f"there is no dataset.json in {source}.\n  SOURCE is an nnU-Net raw dataset, as lits_window.")
    for kind in ("imagesTr", "labelsTr"):
        (raw / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / kind).iterdir()):
            made = raw / kind / path.name
            if not made.is_symlink():
                made.symlink_to(path.resolve())
    write_json(raw / "dataset.json", json.loads((source / "dataset.json").read_text()))


def _child_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
