"""What only a GPU can show, in 25 minutes: the networks' cost, predictions beside a CPU's, and trainings that compare.

    python benchmarks/gpu.py SOURCE --work DIR [--cts CT ...] [--minutes 25] [--call-minutes 9]
    python benchmarks/gpu.py SOURCE --shrink OUT

Everything is written below DIR. DIR/gpu.json and DIR/gpu.md are renewed after every step, with the device, its driver
and torch in the first line. Run the same command again after an interruption: finished steps are not repeated, and the
minutes count over all calls. With --call-minutes one call ends by itself before that.

1. Networks, beside nnU-Net's own (``livseg benchmark``, mixed precision): the five systems at 128^3 and 512^2, then the
   same with torch.compile. A row that fails has its message in the table.
2. ``livseg segment`` with the starter model on the GPU and on the CPU, for each CT: how many labels are equal.
3. Trainings on SOURCE, an nnU-Net raw dataset with liver 1 and tumor 2: plain nnU-Net three times and the five systems,
   with one geometry and recipe and as many steps as fit; nnU-Net's validation, then ``livseg compare``.
4. All other rows, without torch.compile, until the minutes are over.

Where nothing can be downloaded, take along this repository (8 MiB), the dataset, the CTs, and of the packages that
pyproject.toml names those that are missing there (SimpleITK alone has about 50 MiB). lits_window has 84 MiB;
``--shrink`` writes a copy whose pixels are averages of two by two, with 24 MiB. The trainings' voxels are larger still.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from short_trainings import ONE_CHANNEL, STOCK, Length, stock_plans  # beside this script
from workplace import Workplace, link_raw, require_outside

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import atomic_path, write_json, write_text
from nnunet_livseg.data.splits import train_val_test_split
from nnunet_livseg.variants import VARIANTS, Variant, find_variant

DATASET, CONFIGURATION = "Dataset821_LiTSWindow", "3d_fullres"
NUMBER = int(DATASET[7:10])
PLANS, PILOT = "nnUNetGpuPlans", "nnUNetPilotPlans"
PILOT_ITERATIONS = 20  # of each of its two epochs; the second one says what a step takes
VALIDATION_ITERATIONS = 2
NETWORKS_SHARE = 0.4  # of the minutes, before the other parts
AFTER_TRAINING_S = 60  # for the comparison
NETWORK_S, PATIENCE_S = 30, 240  # what a row needs about, and what it may take at most


@dataclass(frozen=True)
class Settings:
    """What the measurements depend on. Sizes in voxels (z, y, x), ``spacing`` in mm.

    Args:
        rows: Names of livseg list that are measured; the full networks among them are trained as well.
        batch_2d: Slices per step at ``patch_2d``.
        features: Channels per stage of the trained networks.
        validation: Patients that validate the trainings.
        again: Further trainings of plain nnU-Net.
        steps: Of each training; None: what fits.
    """

    device: str
    rows: tuple[str, ...]
    patch_3d: tuple[int, ...]
    patch_2d: tuple[int, ...]
    batch: int
    batch_2d: int
    repeats: int
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    features: tuple[int, ...]
    validation: int
    epochs: int
    again: int
    steps: int | None


@dataclass(frozen=True)
class Network:
    """One measurement of a row beside nnU-Net's network."""

    row: str
    dim: int
    compiled: bool

    @property
    def table(self) -> str:
        return f"{self.dim}D, {'torch.compile' if self.compiled else 'eager'}"


@dataclass(frozen=True)
class Training:
    """One training; ``repeat`` counts those of the same kind, and is their fold."""

    system: str
    repeat: int = 0

    @property
    def name(self) -> str:
        return self.system + (f"-{self.repeat + 1}" if self.repeat else "")

    @property
    def trainer(self) -> str:
        return "nnUNetTrainerShort" if self.system == STOCK else find_variant(self.system).trainer

    @property
    def plans(self) -> str:
        return PLANS if self.system == STOCK else f"{self.trainer.removesuffix('Trainer')}GpuPlans"


class OutOfTime(Exception):
    """A step would not end in the minutes that are left."""


class LentMachine(Workplace):
    """nnU-Net's folders and commands, with as many workers as the machine has processors where it has a GPU."""

    def _environment(self, program: str) -> dict[str, str]:
        environment = super()._environment(program) | {"nnUNet_compile": "f"}  # half a minute for each training
        if self.settings["device"] == "cpu":
            return environment
        processors = os.cpu_count() or 1
        workers = str(max(1, min(12, processors - 2)))
        threads = {"OMP_NUM_THREADS": str(processors)} if program == "livseg" else {}
        return environment | {"nnUNet_n_proc_DA": workers, "nnUNet_def_n_proc": workers} | threads


class Run:
    """The whole run in one folder: what was found so far, and the time that is left."""

    def __init__(self, source: Path, work: Path, settings: Settings, *, minutes: float, call_minutes: float) -> None:
        self.source, self.settings = source, settings
        self.place = LentMachine(work, DATASET, asdict(settings) | {"source": str(source.resolve())})
        self.file = work / "gpu.json"
        empty = {"machine": {}, "spent_s": 0.0, "networks": {}, "segment": {}, "trainings": {}}
        self.found = json.loads(self.file.read_text()) if self.file.exists() else empty
        self.measurer = Measurer()
        self._start, self._spent = time.monotonic(), self.found["spent_s"]
        self._minutes, self._call_minutes = minutes, call_minutes

    def left_s(self, share: float = 1.0, *, calls: bool = False) -> float:
        """Seconds until ``share`` of all minutes is used up or this call ends; ``calls``: whenever that ends."""
        now = time.monotonic() - self._start
        left = 60 * self._minutes * share - self._spent - now
        return left if calls else min(left, 60 * self._call_minutes - now)

    def require(self, seconds: float, share: float = 1.0) -> None:
        """Say that a step takes about so long.

        Raises:
            OutOfTime: There is less.
        """
        if self.left_s(share) < seconds:
            raise OutOfTime

    def save(self) -> None:
        """Write what was found."""
        self.found["spent_s"] = round(self._spent + time.monotonic() - self._start, 1)
        write_json(self.file, self.found)
        write_text(self.file.with_suffix(".md"), to_markdown(self.found, self.settings))

    @cached_property
    def systems(self) -> list[str]:
        """The full network of every paper, among the rows that are measured."""
        papers = dict.fromkeys(row.paper for row in VARIANTS if not row.paper.rival)
        full = [next(row.name for row in VARIANTS if row.paper == paper) for paper in papers]
        return [name for name in full if name in self.settings.rows]


def everything(
    source: Path, work: Path, settings: Settings, *, cts: Sequence[Path], minutes: float, call_minutes: float = 1e6
) -> dict[str, Any]:
    """All parts, in ``work``; what gpu.json holds.

    Raises:
        UserError: ``work`` is in the repository, or contains a run with other settings, or no data can be prepared.
    """
    require_outside(work)
    run = Run(source, work, settings, minutes=minutes, call_minutes=call_minutes)
    first, others = networks(run)
    try:
        if not run.found["machine"]:
            run.found["machine"] = run.measurer("machine", settings.device)
            run.save()
        with suppress(OutOfTime):
            measure_networks(run, first, share=NETWORKS_SHARE)
        segment_twice(run, cts)
        try:
            train_all(run)
        except UserError as error:  # the next call tries again
            run.found["error"] = last_line(error)
            print(error, file=sys.stderr)
        else:
            run.found.pop("error", None)
        measure_networks(run, [*first, *others])
    except OutOfTime:
        print(f"{max(0, run.left_s()):.0f} s are left, too few for the next step; the same command continues")
    finally:
        run.save()
        run.measurer.close()
    return run.found


# --- networks ---------------------------------------------------------------------------------------------------------


class Measurer:
    """Measures in a process of its own, which a row may block or take down: the next one gets a new process."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def __call__(self, *job: object) -> Any:
        """What ``JOBS`` says about the job, or ``{"error": message}``."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, there = context.Pipe()
            self._process = context.Process(target=_measure, args=(there,), daemon=True)
            self._process.start()
            there.close()
        self._pipe.send(job)
        try:
            answered = self._pipe.poll(PATIENCE_S)
            answer = self._pipe.recv() if answered else {"error": f"it did not end within {PATIENCE_S} s"}
        except EOFError:
            answered, answer = False, {"error": "its process ended without a message"}
        if not answered:
            self.close()
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _measure(pipe: Connection) -> None:
    """In the process: answer jobs until one leaves the GPU's context unusable."""
    import torch

    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train
    while True:
        name, *job = pipe.recv()
        try:
            pipe.send(JOBS[name](*job))
        except Exception as error:
            text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
            pipe.send({"error": text[:300]})
            if "CUDA error" in text:
                return
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _machine(device: str) -> dict[str, str]:
    from importlib.metadata import version

    import torch

    from nnunet_livseg.diagnostics.benchmark import BenchmarkSetup

    name = BenchmarkSetup.of(patch=(32, 32), device=device).device_name
    driver = "none"
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()[0]
    return {"device": name, "driver": driver, "torch": torch.__version__, "nnunetv2": version("nnunetv2")}


def _cost(network: Network, settings: Settings) -> dict[str, Any]:
    from nnunet_livseg.diagnostics.benchmark import BenchmarkSetup, benchmark
    from nnunet_livseg.diagnostics.benchmark_table import to_json

    patch, batch = (settings.patch_3d, settings.batch) if network.dim == 3 else (settings.patch_2d, settings.batch_2d)
    setup = BenchmarkSetup.of(
        patch=patch, batch=batch, device=settings.device, repeats=settings.repeats, compiled=network.compiled
    )
    if settings.device == "cpu":
        setup = replace(setup, features=settings.features)
    return to_json(benchmark([find_variant(network.row)], setup))


def _step_s(system: str, settings: Settings) -> float:
    from nnunet_livseg.diagnostics.benchmark import step_seconds

    row = None if system == STOCK else find_variant(system)
    return step_seconds(
        row, patch=settings.patch, features=settings.features, batch=settings.batch, device=settings.device
    )


JOBS = {"machine": _machine, "cost": _cost, "step": _step_s}


def networks(run: Run) -> tuple[list[Network], list[Network]]:
    """The systems, and then compiled; and all other rows. Of a kind, 3D comes first."""

    def of(names: Sequence[str], compiled: bool) -> Iterator[Network]:
        for dim in (3, 2):
            yield from (Network(name, dim, compiled) for name in names if dim in find_variant(name).dims)

    others = [name for name in run.settings.rows if name not in run.systems]
    compiled = of(run.systems, True) if run.settings.device == "cuda" else ()
    return [*of(run.systems, False), *compiled], list(of(others, False))


def measure_networks(run: Run, wanted: Sequence[Network], *, share: float = 1.0) -> None:
    """Measure what is not measured yet.

    Raises:
        OutOfTime: The next one may not fit.
    """
    for network in wanted:
        table = run.found["networks"].setdefault(network.table, {})
        if network.row in table:
            continue
        run.require(3 * NETWORK_S if network.compiled else NETWORK_S, share)
        print(time.strftime("%H:%M:%S"), network.row, network.table, flush=True)
        table[network.row] = run.measurer("cost", network, run.settings)
        run.save()


# --- prediction -------------------------------------------------------------------------------------------------------


def segment_twice(run: Run, cts: Sequence[Path]) -> None:
    """Segment each CT on the device and on the CPU.

    Raises:
        OutOfTime: The next one may not fit.
    """
    for ct in cts:
        name = ct.name.partition(".")[0]
        if name in run.found["segment"]:
            continue
        run.require(180)
        folders = [run.place.folder / "segment" / name / where for where in ("device", "cpu")]
        options = ("--quality", "standard", "--no-report", "--no-dicom", "--quiet")
        try:
            for folder, device in zip(folders, (run.settings.device, "cpu"), strict=True):
                step = f"segment/{name}/{folder.name}"
                run.place.call(step, "livseg", "segment", ct, "-o", folder, "-device", device, *options)
            run.found["segment"][name] = agreement(*folders)
        except UserError as error:
            run.found["segment"][name] = {"error": last_line(error)}
        run.save()


def agreement(ours: Path, theirs: Path) -> dict[str, Any]:
    """Two results of ``livseg segment``: the share of equal labels, the Dice between the foregrounds, and seconds."""
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(folder / "segmentation.nii.gz")) for folder in (ours, theirs)]
    made = [json.loads((folder / "measurements.json").read_text())["made_with"] for folder in (ours, theirs)]
    both, sizes = np.count_nonzero((labels[0] > 0) & (labels[1] > 0)), sum(np.count_nonzero(one) for one in labels)
    return {
        "voxels": labels[0].size,
        "different": int(np.count_nonzero(labels[0] != labels[1])),
        "dice": 2 * both / sizes if sizes else 1.0,
        "device_s": made[0]["seconds"],
        "cpu_s": made[1]["seconds"],
    }


# --- trainings --------------------------------------------------------------------------------------------------------


def trainings(run: Run) -> list[Training]:
    """nnU-Net, the systems in their forms for one channel, and nnU-Net again."""
    systems = [Training(ONE_CHANNEL.get(name, name)) for name in run.systems]
    return [Training(STOCK), *systems, *(Training(STOCK, repeat + 1) for repeat in range(run.settings.again))]


def train_all(run: Run) -> None:
    """Prepare, decide on the number of steps, train, compare.

    Raises:
        OutOfTime: The next step may not fit.
        UserError: The data cannot be prepared.
    """
    prepare(run)
    jobs = trainings(run)
    if "steps" not in run.found:
        run.found["steps"] = steps_that_fit(run, jobs)
        run.save()
    length = run.found["steps"]
    for job in jobs:
        if job.name in run.found["trainings"]:
            continue
        run.require(length["seconds"].get(job.system, 0))
        try:
            train(run, job, length["iterations"])
            run.found["trainings"][job.name] = {"train_s": run.place.steps[f"train/{job.name}"]["wall_s"]}
        except UserError as error:
            run.found["trainings"][job.name] = {"error": last_line(error)}
        run.save()
    if "compare" not in run.place.steps:
        compare(run, [job for job in jobs if "error" not in run.found["trainings"][job.name]])
        run.save()


def prepare(run: Run) -> None:
    """nnU-Net's plans, its network at our geometry, and the preprocessed data that all trainings share."""
    place, chosen = run.place, run.settings
    processes = 8 if chosen.device == "cuda" else 1
    link_raw(run.source, place.raw)
    cases = sorted(path.name.partition(".")[0] for path in (place.raw / "labelsTr").iterdir())
    counts = (len(cases) - chosen.validation, chosen.validation, 0)
    split, _ = train_val_test_split({case: case for case in cases}, counts, seed=0)
    write_json(place.raw / "splits_final.json", [split] * (1 + chosen.again))  # the repeats are called folds
    run.require(120)
    plan = ("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", CONFIGURATION, "--no_pp", "-npfp", processes)
    place.call("fingerprint", *plan)
    size = ("--spacing", *chosen.spacing, "--patch", *chosen.patch, "--features", *chosen.features)
    ours = ("-m", "dpcnet-unet", "-c", CONFIGURATION, "-plans_name", "GeometryPlans", "--batch", chosen.batch)
    place.call("geometry", "livseg", "plan", "-d", NUMBER, *ours, *size)
    write_stock_plans(place, PLANS, 1, 1)
    made = ("-plans_name", PLANS, "-c", CONFIGURATION, "-np", processes)
    place.call("preprocess", "nnUNetv2_preprocess", "-d", NUMBER, *made)


def write_stock_plans(place: Workplace, name: str, epochs: int, iterations: int) -> None:
    """Plans with nnU-Net's own network at the geometry of GeometryPlans, and the length of a training."""
    stock, geometry = (
        json.loads((place.preprocessed / f"{n}.json").read_text()) for n in ("nnUNetPlans", "GeometryPlans")
    )
    length = Length(epochs, iterations, VALIDATION_ITERATIONS)
    content = stock_plans(stock, geometry, length, name=name, data=PLANS, configuration=CONFIGURATION)
    write_json(place.preprocessed / f"{name}.json", content)


def steps_that_fit(run: Run, jobs: Sequence[Training]) -> dict[str, Any]:
    """Steps of an epoch, and the seconds that each system's training is going to take.

    A pilot says what surrounds the steps of a training, and what a step takes with its data; a network whose step alone
    takes longer needs longer.
    """
    epochs = run.settings.epochs
    if run.settings.steps is not None:
        iterations, seconds = max(1, run.settings.steps // epochs), {}
    else:
        write_stock_plans(run.place, PILOT, 2, PILOT_ITERATIONS)
        pilot = ("-tr", "nnUNetTrainerShort", "-p", PILOT, "-device", run.settings.device)
        run.place.call("pilot", "nnUNetv2_train", NUMBER, CONFIGURATION, 0, *pilot)
        epoch_s = _epoch_seconds(_folder(run.place, "nnUNetTrainerShort", PILOT, 0))
        with_data, around = epoch_s[-1] / PILOT_ITERATIONS, run.place.steps["pilot"]["wall_s"] - sum(epoch_s)
        alone = {job.system: run.measurer("step", job.system, run.settings) for job in jobs}
        step_s = {name: max(with_data, s) if isinstance(s, float) else with_data for name, s in alone.items()}
        total = run.left_s(calls=True) - AFTER_TRAINING_S
        steps = (total - around * len(jobs)) / sum(step_s[job.system] for job in jobs)
        iterations = max(1, int(steps / epochs))
        seconds = {name: round(around + s * iterations * epochs, 1) for name, s in step_s.items()}
    return {"epochs": epochs, "iterations": iterations, "seconds": seconds}


def _epoch_seconds(folder: Path) -> list[float]:
    import torch

    log = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)["logging"]
    return [e - s for s, e in zip(log["epoch_start_timestamps"], log["epoch_end_timestamps"], strict=False)]


def train(run: Run, job: Training, iterations: int) -> None:
    """Plans and training, with nnU-Net's validation.

    Raises:
        UserError: A command failed.
    """
    place, epochs = run.place, run.settings.epochs
    if job.system == STOCK:
        write_stock_plans(place, PLANS, epochs, iterations)
    else:
        length = ("--epochs", epochs, "--iterations", iterations, "--validation-iterations", VALIDATION_ITERATIONS)
        ours = ("-m", job.system, "-c", CONFIGURATION, "-p", PLANS, "-plans_name", job.plans)
        place.call(
            f"plan/{job.name}",
            "livseg",
            "plan",
            "-d",
            NUMBER,
            *ours,
            "--recipe",
            "nnunet",
            "--loss",
            "dice_ce",
            *length,
        )
    model = ("-tr", job.trainer, "-p", job.plans, "-device", run.settings.device)
    place.call(f"train/{job.name}", "nnUNetv2_train", NUMBER, CONFIGURATION, job.repeat, *model)


def compare(run: Run, jobs: Sequence[Training]) -> None:
    """Evaluate all trainings on the patients that validate them, paired with nnU-Net."""
    place = run.place
    split = json.loads((place.raw / "splits_final.json").read_text())[0]
    references = place.folder / "references"
    references.mkdir(exist_ok=True)
    for case in split["val"]:
        made = references / f"{case}.nii.gz"
        if not made.is_symlink():
            made.symlink_to((place.raw / "labelsTr" / made.name).resolve())
    folders = [_folder(place, job.trainer, job.plans, job.repeat) / "validation" for job in jobs]
    options = ("--names", *(job.name for job in jobs), "-o", place.folder / "comparison", "--no-report", "--quiet")
    place.call("compare", "livseg", "compare", *folders, references, *options)
    comparison = json.loads((place.folder / "comparison" / "comparison.json").read_text())
    for job in jobs:
        summary = json.loads((place.folder / "comparison" / job.name / "summary.json").read_text())["structures"]
        dice = {name: one["metrics"]["dice"]["mean"] for name, one in summary.items()}
        tests = {
            test["structure"]: {key: test[key] for key in ("difference", "ci95_low", "ci95_high", "p_holm")}
            for test in comparison["tests"]
            if (test["a"], test["b"], test["metric"]) == (STOCK, job.name, "dice")
        }
        run.found["trainings"][job.name] |= {"dice": dice, "nnunet_minus_this": tests}


def _folder(place: Workplace, trainer: str, plans: str, fold: int) -> Path:
    return place.model(f"{trainer}__{plans}__{CONFIGURATION}") / f"fold_{fold}"


# --- tables -----------------------------------------------------------------------------------------------------------


def last_line(error: UserError) -> str:
    """The end of a command's output, which names the error."""
    return str(error).strip().splitlines()[-1][:300]


def to_markdown(found: dict[str, Any], settings: Settings) -> str:
    """All tables."""
    machine = found["machine"]
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    for name, table in found["networks"].items():
        lines += [f"## {name}", "", *network_table(table), ""]
    if found["segment"]:
        lines += ["## livseg segment, quality standard", "", *segment_table(found["segment"]), ""]
    if "error" in found:
        lines += [f"The trainings are not complete: {found['error']}", ""]
    if found["trainings"]:
        steps = found["steps"]["epochs"] * found["steps"]["iterations"]
        shape = f"patch {settings.patch}, spacing {settings.spacing} mm, batch {settings.batch}, recipe nnunet"
        lines += [f"## Trainings: {steps} steps, {shape}", "", *training_table(found["trainings"]), ""]
    return "\n".join(lines)


def network_table(table: dict[str, Any]) -> list[str]:
    """Every row beside the nnU-Net of its own turns; failed ones with their message."""
    from nnunet_livseg.diagnostics.benchmark import BenchmarkResult, BenchmarkSetup, NetworkCost
    from nnunet_livseg.diagnostics.benchmark_table import to_markdown

    measured = [one for one in table.values() if "error" not in one]
    failed = [f"| {name} | {one['error'].replace('|', '/')} |" for name, one in table.items() if "error" in one]
    if not measured:
        return ["| network | error |", "|---|---|", *failed]
    pairs = [tuple(NetworkCost(**one["networks"][0][who]) for who in ("stock", "variant")) for one in measured]
    setting = measured[0]["setting"] | {"patch": tuple(measured[0]["setting"]["patch"])}
    return [*to_markdown(BenchmarkResult(BenchmarkSetup(**setting), pairs)).splitlines(), *failed]


def segment_table(results: dict[str, Any]) -> list[str]:
    lines = ["| CT | voxels | equal labels | Dice of the foregrounds | device | CPU |", "|---|---|---|---|---|---|"]
    for name, one in results.items():
        if "error" in one:
            lines.append(f"| {name} | {one['error'].replace('|', '/')} |")
            continue
        equal = f"{100 * (1 - one['different'] / one['voxels']):.4f}% ({one['different']:,} differ)"
        times = f"{one['device_s']:.1f} s | {one['cpu_s']:.1f} s"
        lines.append(f"| {name} | {one['voxels']:,} | {equal} | {one['dice']:.5f} | {times} |")
    return lines


def training_table(results: dict[str, Any]) -> list[str]:
    lines = ["| training | time | liver Dice | tumor Dice | liver: minus nnU-Net, 95% CI, p (Holm) | tumor: the same |"]
    lines.append("|---|---|---|---|---|---|")
    for name, one in results.items():
        if "error" in one:
            lines.append(f"| {name} | {one['error'].replace('|', '/')} |")
            continue
        dice = [f"{100 * one['dice'][key]:.1f}" if "dice" in one else "" for key in ("liver", "tumor")]
        tests = [against(one.get("nnunet_minus_this", {}).get(key)) for key in ("liver", "tumor")]
        lines.append(f"| {name} | {one['train_s']:.0f} s | {' | '.join([*dice, *tests])} |")
    return lines


def against(test: dict[str, Any] | None) -> str:
    """This training minus nnU-Net in points of Dice, from nnU-Net minus this."""
    if test is None or test["difference"] is None:
        return ""
    mean, high, low = (-100 * test[key] for key in ("difference", "ci95_low", "ci95_high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}), {test['p_holm']:.3f}"


# --- what travels -----------------------------------------------------------------------------------------------------


def shrink(source: Path, out: Path) -> None:
    """A copy of a raw dataset whose pixels are averages of two by two; a label is where it has half of them."""
    from nnunet_livseg.inference.coarse_grid import averaged

    block = (1, 2, 2)
    for path in sorted((source / "imagesTr").glob("*.nii.gz")):
        _write(averaged(sitk.ReadImage(str(path)), block), out / "imagesTr" / path.name)
    for path in sorted((source / "labelsTr").glob("*.nii.gz")):
        labels = sitk.ReadImage(str(path))
        parts = [averaged(sitk.Cast(labels >= value, sitk.sitkFloat32), block) >= 0.5 for value in (1, 2)]
        _write(parts[0] + parts[1], out / "labelsTr" / path.name)
    write_json(out / "dataset.json", json.loads((source / "dataset.json").read_text()))


def _write(image: sitk.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=9)


def rows_of(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the table, all of them by default."""
    chosen: list[Variant] = [find_variant(name) for name in names] or list(VARIANTS)
    return tuple(row.name for row in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = parser.add_argument
    own("source", type=Path, help="nnU-Net raw dataset with liver 1 and tumor 2")
    own("--work", type=Path, help="everything is written below this folder")
    own("--shrink", type=Path, metavar="OUT", help="write a smaller copy of the dataset, and end")
    own("--cts", type=Path, nargs="*", default=(), help="CTs to segment on both devices")
    own("--minutes", type=float, default=25, help="of all calls together (default: %(default)s)")
    own("--call-minutes", type=float, default=1e6, help="of this call (default: all)")
    own("--device", default="cuda", choices=("cuda", "cpu"))
    own("--rows", nargs="*", default=(), help="rows of livseg list (all)")
    own("--patch-3d", type=int, nargs=3, default=(128, 128, 128), help="of the measured networks")
    own("--patch-2d", type=int, nargs=2, default=(512, 512), help="of the measured networks")
    own("--batch", type=int, default=2)
    own("--batch-2d", type=int, default=12)
    own("--repeats", type=int, default=5)
    own("--spacing", type=float, nargs=3, default=(2.5, 2.5, 2.5), help="of the trainings, mm")
    own("--patch", type=int, nargs=3, default=(96, 128, 128), help="of the trainings, voxels")
    own("--features", type=int, nargs="+", default=(32, 64, 128, 256, 320, 320), help="of the trainings")
    own("--validation", type=int, default=8, help="patients that validate the trainings")
    own("--epochs", type=int, default=10)
    own("--again", type=int, default=2, help="further trainings of plain nnU-Net")
    own("--steps", type=int, help="of each training (what fits)")
    args = vars(parser.parse_args())
    source, work, out = args.pop("source"), args.pop("work"), args.pop("shrink")
    if out is not None:
        shrink(source, out)
        return
    if work is None:
        parser.error("--work is missing")
    cts, minutes, call_minutes = (args.pop(name) for name in ("cts", "minutes", "call_minutes"))
    tuples = {name: tuple(value) for name, value in args.items() if isinstance(value, list)}
    settings = Settings(**args | tuples | {"rows": rows_of(args["rows"])})
    found = everything(source, work.resolve(), settings, cts=cts, minutes=minutes, call_minutes=call_minutes)
    print(to_markdown(found, settings))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"gpu: {error}")
