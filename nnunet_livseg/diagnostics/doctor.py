"""Check what could keep a training from running on this machine; a failed check does not stop the others."""

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.core.allocator import ENVIRONMENT, on_glibc
from nnunet_livseg.core.findings import Finding
from nnunet_livseg.core.names import shell_path
from nnunet_livseg.core.nnunet_folders import VARIABLES
from nnunet_livseg.diagnostics.bug_report import requirements
from nnunet_livseg.diagnostics.machine import GIB, memory_gib, usable_cores
from nnunet_livseg.startup import OPT_OUT, VARIABLE, discovery_folder

LEAST_SHARED_MEMORY_GIB = 1.0
MEMORY_PER_WORKER_GIB = 2.0  # a data-loading worker of nnU-Net with 3D patches
IMPORT_NAMES = {"pillow": "PIL", "scikit-image": "skimage", "simpleitk": "SimpleITK"}  # unlike their packages


def _finding(severity: str, subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(severity, subject, None, f"{text}\n{remedy}".rstrip())


def examine() -> Iterator[Finding]:
    """All findings, in the order in which a user would fix them, each as soon as it is known; never raises."""
    for subject, severity, check in _checks():
        try:
            yield from check()
        except (Exception, SystemExit) as error:  # other people's code does what it likes when it is imported
            yield _finding(severity, subject, f"cannot be checked: {_in_a_line(error)}", "first fix the errors above")


def _checks() -> Iterator[tuple[str, str, Callable[[], Iterator[Finding]]]]:
    """Subject, how bad it is if the check itself fails, and check."""
    yield "nnunetv2", "error", _versions
    yield "libraries", "error", _libraries
    yield "trainers", "error", _trainers
    for variable in VARIABLES:
        yield variable, "error", partial(_folder, variable)
    yield "GPU", "warning", _gpu
    yield "memory", "warning", _memory
    yield "shared memory", "warning", _shared_memory
    yield "open files", "warning", _open_files
    yield "workers", "warning", _workers
    yield "memory pages", "warning", _pages


def _in_a_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


# --- software ---------------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    yield _finding("ok", "nnunet-livseg", __version__)
    remedy = "pip install 'nnunetv2>=2.8,<2.9'"
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        yield _finding("error", "nnunetv2", "not installed; this package is made for 2.8", remedy)
        return
    spec = importlib.util.find_spec("nnunetv2")
    place = f" ({Path(spec.origin).parent})" if spec and spec.origin else ""
    if version.startswith("2.8."):
        yield _finding("ok", "nnunetv2", version + place)
    else:
        yield _finding("error", "nnunetv2", f"{version}, but this package is made for 2.8{place}", remedy)


def _libraries() -> Iterator[Finding]:
    """Whether everything that this package requires can be imported."""
    names, broken = requirements(), False
    for name in names:
        try:
            with redirect_stdout(StringIO()):
                importlib.import_module(IMPORT_NAMES.get(name.lower(), name.replace("-", "_")))
        except (Exception, SystemExit) as error:
            broken = True
            yield _finding("error", name, f"cannot be imported: {_in_a_line(error)}", f"pip install {name}")
    if not broken:
        yield _finding("ok", "libraries", f"all {len(names)} can be imported")


def _plug_ins() -> Iterator[Finding]:
    """nnU-Net imports module after module until it has found a trainer; one that fails ends its search."""
    import nnunetv2

    package = "nnunetv2.training.nnUNetTrainer"
    yield from _broken_module(str(Path(nnunetv2.__path__[0], "training", "nnUNetTrainer")), package)
    for folder in filter(str.strip, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if folder == discovery_folder():
            continue  # ours, which the next check looks at
        if Path(folder).exists():
            yield from _broken_module(folder, None)
        else:
            yield _finding("warning", "plug-ins", f"there is no folder {folder}", f"remove it from {VARIABLE}")


def _broken_module(folder: str, package: str | None) -> Iterator[Finding]:
    """The first module of ``folder`` that nnU-Net's own search cannot import, as an error."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    said = StringIO()
    try:
        with redirect_stdout(said):
            recursive_find_python_class(
                folder,
                "a class that no module has",
                package,
                base_folder=None if package else folder,
                verbose=True,
                cleanup_imports_from_base_folder=package is None,
            )
    except (Exception, SystemExit) as error:
        named = re.findall(r"Inspecting module: (\S+)", said.getvalue())
        what = f"module {named[-1]} of {folder}" if named else folder
        remedy = f"remove {folder} from {VARIABLE}, or the module from the folder"
        text = f"nnU-Net cannot import {what}, and finds no trainer behind it: {_in_a_line(error)}"
        yield _finding("error", "plug-ins", text, "remove the module from nnU-Net" if package else remedy)


def _trainers() -> Iterator[Finding]:
    """nnU-Net's own search must find the very class that a normal import gives; another copy cannot be pickled."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_livseg.trainers import TRAINERS

    broken = list(_plug_ins())
    yield from broken
    for name, expected in TRAINERS.items():
        try:
            with redirect_stdout(StringIO()):
                found = recursive_find_trainer_class_by_name(name)
        except (Exception, SystemExit) as error:
            if any(finding.severity == "error" for finding in broken):
                return  # has been said
            if not isinstance(error, RuntimeError):
                raise
            remedy = f"unset {OPT_OUT}" if os.environ.get(OPT_OUT) else 'eval "$(livseg env)"'
            value = os.environ.get(VARIABLE, "not set")
            yield _finding("error", "trainers", f"nnU-Net does not find {name} ({VARIABLE}: {value})", remedy)
            return
        if found is not expected:
            where = f"{found.__module__} of {VARIABLE}={os.environ.get(VARIABLE)}"
            yield _finding("error", "trainers", f"another {name} comes first: {where}", f"remove it from {VARIABLE}")
            return
    yield _finding("ok", "trainers", f"nnU-Net finds all {len(TRAINERS)}")


# --- machine ----------------------------------------------------------------------------------------------------------


def _folder(variable: str) -> Iterator[Finding]:
    value, holds = os.environ.get(variable), VARIABLES[variable]
    if not value:
        yield _finding("error", variable, f"not set ({holds})", f"export {variable}=/path/to/{variable}")
    elif not Path(value).is_dir():
        yield _finding("error", variable, f"{value} is not a folder", f"mkdir -p {shell_path(value)}")
    elif not os.access(value, os.W_OK):
        yield _finding("error", variable, f"{value} cannot be written", f"correct its permissions ({holds})")
    else:
        yield _finding("ok", variable, f"{value} ({shutil.disk_usage(value).free / GIB:.0f} GiB free)")


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield _finding(
            "warning", "GPU", f"none that torch {torch.__version__} can use", "add -device cpu to nnU-Net's commands"
        )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield _finding("ok", "GPU", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")


def _memory() -> Iterator[Finding]:
    total = memory_gib()
    enough = total >= 15
    yield _finding(
        "ok" if enough else "warning",
        "memory",
        f"{total:.0f} GiB",
        ""
        if enough
        else "nnU-Net resamples whole scans: preprocess and predict with fewer processes (-np 1, -npp 1 -nps 1)",
    )


def _shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / GIB
        enough = free >= LEAST_SHARED_MEMORY_GIB
        remedy = "" if enough else "docker run --shm-size=8g (or --ipc=host); else background workers die"
        yield _finding("ok" if enough else "warning", "shared memory", f"{free:.1f} GiB free in {shared}", remedy)


def _open_files() -> Iterator[Finding]:
    import resource  # not on Windows

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 1024:
        yield _finding("warning", "open files", f"at most {files}", "ulimit -n 4096")


def _workers() -> Iterator[Finding]:
    cores = usable_cores()
    suggested = max(1, min(cores, int(memory_gib() / MEMORY_PER_WORKER_GIB), 12))
    setting = os.environ.get("nnUNet_n_proc_DA")  # noqa: SIM112 - nnU-Net spells it so
    if setting is None:
        text = f"{cores} cores; nnUNet_n_proc_DA is not set, nnU-Net chooses by host name or takes 12"
        more = cores < 12
        yield _finding(
            "warning" if more else "ok", "workers", text, f"export nnUNet_n_proc_DA={suggested}" if more else ""
        )
    elif setting.isdecimal() and int(setting):
        yield _finding("ok", "workers", f"{cores} cores; nnUNet_n_proc_DA={setting} (suggested: {suggested})")
    else:  # trainings take 0, but the planner hands it to torch as a number of threads
        text = f"nnUNet_n_proc_DA is {setting!r}, and nnUNetv2_plan_and_preprocess stops where it is not 1 or more"
        yield _finding("warning", "workers", text, f"export nnUNet_n_proc_DA={suggested}")


def _pages() -> Iterator[Finding]:
    """What our trainers and ``livseg segment`` set by themselves on a CPU, and nnU-Net's own programs do not."""
    import torch

    if torch.cuda.is_available() or not on_glibc():
        return
    if all(os.environ.get(name) for name in ENVIRONMENT):
        yield _finding("ok", "memory pages", "kept in every process, by MALLOC_MMAP_THRESHOLD_")
        return
    text = "our trainers and livseg segment keep them on a CPU; other trainers and nnUNetv2_predict are faster with:"
    yield _finding("ok", "memory pages", text, "export " + " ".join(f"{k}={v}" for k, v in ENVIRONMENT.items()))
