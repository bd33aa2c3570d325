"""The whole workflow once: phantom, plans, training, prediction by nnU-Net's own commands; evaluation and report."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from nnunet_livseg.core.allocator import ENVIRONMENT
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_text
from nnunet_livseg.core.labels import LIVER, TUMOR
from nnunet_livseg.core.nnunet_folders import VARIABLES
from nnunet_livseg.data.phantom import write_dataset
from nnunet_livseg.evaluation import evaluate_folder
from nnunet_livseg.planning.plans_file import OtherPlansError, write_plans
from nnunet_livseg.plans import Overrides
from nnunet_livseg.report.evaluation_report import write_report
from nnunet_livseg.variants import Variant

DATASET = "Dataset901_Phantom"
CONFIGURATION = "3d_fullres"
SIZE, SPACING_MM = (32, 48, 48), (7.5, 7.3, 7.3)  # (z, y, x); a patch is a whole CT
FEATURES = (16, 32, 64, 128)  # channels per stage, half of nnU-Net's: two cores shall do it in minutes
BATCH = 2
UNSEEN = 2
LEARNING_RATE = 3e-3  # the paper's 1e-4 is for a thousand epochs
AUGMENTED, BESIDE, LEAST_S = 1.3, 80, 60  # of the forecast: see seconds_in_all


class Demo:
    """A run of the demo in one folder; every step that is done is skipped when it is run again.

    Args:
        folder: Everything is written below it.
        variant: The network.
        device: ``"cpu"``, ``"cuda"``, or ``None`` to look.
        cases: Training CTs.
        epochs: Training epochs.
        iterations: Training steps per epoch; ``None`` chooses by device.
    """

    def __init__(
        self,
        folder: Path,
        variant: Variant,
        *,
        device: str | None = None,
        cases: int = 8,
        epochs: int = 4,
        iterations: int | None = None,
    ) -> None:
        if 3 not in variant.dims:
            raise UserError(f"{variant.name} exists in 2D only, and the demo is in 3D.\n  Choose another: livseg list")
        self.folder, self.variant, self.cases, self.epochs = folder, variant, cases, epochs
        self.device = _device(device)
        self.iterations = iterations or (100 if self.device == "cuda" else 25)
        self.images = folder / "nnUNet_raw" / DATASET / "imagesTs"
        self.references = folder / "nnUNet_raw" / DATASET / "labelsTs"
        self.predictions = folder / "predictions"
        self.report = folder / "evaluation" / "report.html"
        self.env = self._environment()

    def run(self) -> None:
        """Do all steps, and print where everything is."""
        print(f"livseg demo on {self.device}, in {self.folder}")
        print(self._forecast())
        for variable in VARIABLES:
            (self.folder / variable).mkdir(parents=True, exist_ok=True)
        self._phantom()
        self._plan()
        self._train()
        self._predict()
        table = self._evaluate()
        write_text(self.folder / "dice.md", table + "\n")
        print(f"\n{table}\n")
        print(f"everything is in {self.folder}")
        print(f"  report        {self.report.relative_to(self.folder)}  (open it in a browser: numbers and pictures)")
        print(f"  predictions   {self.predictions.name}/")
        print(f"  model         {self._model_folder().relative_to(self.folder)}")
        print("  logs          logs/")
        print("A phantom shows that everything runs; it says nothing about accuracy on patients.")

    def _forecast(self) -> str:
        """How long a new demo takes here, from training steps of this network that are measured now."""
        step_s = measured_step_s(self.variant, self.device)
        minutes = seconds_in_all(step_s, self.epochs * self.iterations) / 60
        return f"a training step takes {step_s:.2g} s here: about {max(1, round(minutes))} min in all"

    # --- steps --------------------------------------------------------------------------------------------------------

    def _phantom(self) -> None:
        print("1/5  synthetic CTs")
        write_dataset(
            self.folder / "nnUNet_raw" / DATASET,
            cases=self.cases,
            test_cases=UNSEEN,
            size=SIZE,
            spacing_mm=SPACING_MM,
            tumor_diameter_mm=(25, 60),
            tumor_types=("cyst", "metastasis", "HCC"),
        )

    def _plan(self) -> None:
        print("2/5  nnUNetv2_plan_and_preprocess, livseg plan")
        dataset = self.folder / "nnUNet_preprocessed" / DATASET
        few = ("-np", "1", "-npfp", "1")  # every further process imports torch again, which takes longer than these CTs
        if not (dataset / "nnUNetPlans.json").is_file() or not (dataset / f"nnUNetPlans_{CONFIGURATION}").is_dir():
            if self.env["nnUNet_n_proc_DA"] == "0":  # nnU-Net's planner hands it to torch, which rejects 0 threads
                self.env["nnUNet_n_proc_DA"] = "1"
            self._call("preprocess", "nnUNetv2_plan_and_preprocess", "-d", "901", "-c", CONFIGURATION, *few)
        overrides = Overrides(
            epochs=self.epochs,
            iterations=self.iterations,
            validation_iterations=1,
            learning_rate=LEARNING_RATE,
            batch=BATCH,
            features=FEATURES,
            configurations=(CONFIGURATION,),
        )
        try:
            self.plans = write_plans(dataset, self.variant, overrides=overrides).content["plans_name"]
        except OtherPlansError as error:
            raise UserError(
                f"{self.folder} contains a demo with other options.\n  Give those again, or another folder."
            ) from error

    def _train(self) -> None:
        print(f"3/5  nnUNetv2_train 901 {CONFIGURATION} all -tr {self.variant.trainer} -p {self.plans}")
        fold = self._model_folder() / "fold_all"
        if (fold / "checkpoint_final.pth").is_file() and (fold / "validation" / "summary.json").is_file():
            return
        more = ["--c"] if any(fold.glob("checkpoint_*.pth")) else []
        with tqdm(total=self.epochs, desc="training", unit="epoch") as bar:

            def follow(line: str) -> None:
                if found := re.search(r"Epoch time: [\d.]+ s", line):
                    bar.update()
                    bar.set_postfix_str(found.group())

            command = ("nnUNetv2_train", "901", CONFIGURATION, "all", "-tr", self.variant.trainer, "-p", self.plans)
            self._call("train", *command, "-device", self.device, *more, follow=follow)

    def _predict(self) -> None:
        print(f"4/5  nnUNetv2_predict on {UNSEEN} unseen CTs")
        if self._is_predicted():
            return
        model = ("-d", "901", "-c", CONFIGURATION, "-f", "all", "-tr", self.variant.trainer, "-p", self.plans)
        place = ("-i", str(self.images), "-o", str(self.predictions))
        self._call("predict", "nnUNetv2_predict", *place, *model, "-device", self.device, "-npp", "0", "-nps", "0")

    def _evaluate(self) -> str:
        print("5/5  livseg evaluate")
        out = self.report.parent
        method = f"{self.variant.trainer}, livseg demo"
        result = evaluate_folder(self.predictions, self.references, images=self.images, out=out, method=method)
        write_report(result, self.report)
        lines = ["| unseen CT | liver Dice | tumor Dice |", "|---|---|---|"]
        for case in result.cases:
            scores = " | ".join(f"{case.structures[name]['dice']:.3f}" for name in (LIVER, TUMOR))
            lines.append(f"| {case.case} | {scores} |")
        return "\n".join(lines)

    def _is_predicted(self) -> bool:
        """Whether all predictions are there and younger than the weights."""
        weights = self._model_folder() / "fold_all" / "checkpoint_final.pth"
        names = [path.name for path in self.references.glob("*.nii.gz")]
        found = [self.predictions / name for name in names]
        return all(path.is_file() and path.stat().st_mtime > weights.stat().st_mtime for path in found)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _model_folder(self) -> Path:
        name = f"{self.variant.trainer}__{self.plans}__{CONFIGURATION}"
        return self.folder / "nnUNet_results" / DATASET / name

    def _environment(self) -> dict[str, str]:
        env = {**os.environ, **{variable: str(self.folder / variable) for variable in VARIABLES}}
        env.setdefault("nnUNet_n_proc_DA", str(max(1, min(4, (os.cpu_count() or 2) // 2))))
        env.setdefault("nnUNet_def_n_proc", "1")
        env.setdefault("nnUNet_compile", "f")  # compiling takes longer than this training
        env["PYTHONUNBUFFERED"] = "1"
        if self.device == "cpu":
            env = ENVIRONMENT | env
        return env

    def _call(self, step: str, *command: str, follow: Callable[[str], None] | None = None) -> None:
        """Run one command, its output in a log file; ``follow`` sees every line.

        Raises:
            UserError: The command failed; the message shows the end of its output.
        """
        log = self.folder / "logs" / f"{step}.log"
        log.parent.mkdir(exist_ok=True)
        program = str(Path(sys.executable).with_name(command[0]))
        lines: list[str] = []
        with (
            log.open("w") as file,
            subprocess.Popen(
                [program, *command[1:]], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as process,
        ):
            try:
                for line in process.stdout:
                    file.write(line)
                    lines.append(line)
                    if follow:
                        follow(line)
            except BaseException:  # the command does not know that this process was told to end
                process.terminate()
                raise
        if process.returncode != 0:
            raise UserError(
                f"{command[0]} failed (exit status {process.returncode}):\n{''.join(lines[-15:])}"
                f"  Its whole output: {log}\n  livseg doctor looks for the usual reasons; then run livseg demo again."
            )


def measured_step_s(variant: Variant, device: str) -> float:
    """Seconds of a training step of the demo's network, on random voxels; the median of three."""
    import torch

    from nnunet_livseg.diagnostics.benchmark import step_seconds

    if device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_train does
    return step_seconds(variant, patch=SIZE, features=FEATURES, batch=BATCH, device=device)


def seconds_in_all(step_s: float, steps: int) -> float:
    """Expected seconds of the whole demo.

    Loading makes a training step ``AUGMENTED`` times as long, and what is not training takes ``BESIDE`` steps.
    """
    return max(LEAST_S, step_s * (steps * AUGMENTED + BESIDE))


def _device(wanted: str | None) -> str:
    import torch

    from nnunet_livseg.inference.devices import require_device

    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    require_device(device)
    return device
