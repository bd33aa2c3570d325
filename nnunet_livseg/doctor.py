"""What could keep a training from running on this machine."""

import importlib.metadata
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from nnunet_livseg import __version__
from nnunet_livseg.allocator import ENVIRONMENT, on_glibc
from nnunet_livseg.folders import VARIABLES
from nnunet_livseg.startup import OPT_OUT, VARIABLE

GIB = 2**30
LEAST_SHARED_MEMORY_GIB = 1.0
MEMORY_PER_WORKER_GIB = 2.0  # a data-loading worker of nnU-Net with 3D patches


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``severity`` is ``ok``, ``warning`` or ``error``."""

    severity: str
    subject: str
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which a user would mend them."""
    checks = (_versions, _trainers, _folders, _gpu, _memory, _workers, _pages)
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "nnunet-livseg", __version__)
    version = importlib.metadata.version("nnunetv2")
    in_range = version.startswith("2.8.")
    yield Finding(
        "ok" if in_range else "error",
        "nnunetv2",
        version + ("" if in_range else ", but this package is made for 2.8"),
        "" if in_range else "pip install 'nnunetv2>=2.8,<2.9'",
    )


def _trainers() -> Iterator[Finding]:
    """nnU-Net's own search must find the very class that a normal import gives; another copy cannot be pickled."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_livseg.trainers import TRAINERS

    for name, expected in TRAINERS.items():
        try:
            with redirect_stdout(StringIO()):
                found = recursive_find_trainer_class_by_name(name)
        except RuntimeError:
            remedy = f"unset {OPT_OUT}" if os.environ.get(OPT_OUT) else 'eval "$(livseg env)"'
            value = os.environ.get(VARIABLE, "not set")
            yield Finding("error", "trainers", f"nnU-Net does not find {name} ({VARIABLE}: {value})", remedy)
            return
        if found is not expected:
            where = f"{found.__module__} of {VARIABLE}={os.environ.get(VARIABLE)}"
            yield Finding("error", "trainers", f"another {name} comes first: {where}", f"take it out of {VARIABLE}")
            return
    yield Finding("ok", "trainers", f"nnU-Net finds all {len(TRAINERS)}")


def _folders() -> Iterator[Finding]:
    for variable, holds in VARIABLES.items():
        value = os.environ.get(variable)
        if not value:
            yield Finding("error", variable, f"not set ({holds})", f"export {variable}=/path/to/{variable}")
        elif not Path(value).is_dir():
            yield Finding("error", variable, f"{value} is no folder", f"mkdir -p {value}")
        elif not os.access(value, os.W_OK):
            yield Finding("error", variable, f"{value} cannot be written", f"mend its permissions ({holds})")
        else:
            yield Finding("ok", variable, f"{value} ({shutil.disk_usage(value).free / GIB:.0f} GiB free)")


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding(
            "warning", "GPU", f"none that torch {torch.__version__} can use", "add -device cpu to nnU-Net's commands"
        )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding("ok", "GPU", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    enough = total >= 15
    yield Finding(
        "ok" if enough else "warning",
        "memory",
        f"{total:.0f} GiB",
        ""
        if enough
        else "nnU-Net resamples whole scans: preprocess and predict with fewer processes (-np 1, -npp 1 -nps 1)",
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / GIB
        enough = free >= LEAST_SHARED_MEMORY_GIB
        remedy = "" if enough else "docker run --shm-size=8g (or --ipc=host); else background workers die"
        yield Finding("ok" if enough else "warning", "shared memory", f"{free:.1f} GiB free in {shared}", remedy)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 1024:
        yield Finding("warning", "open files", f"at most {files}", "ulimit -n 4096")


def _workers() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    suggested = max(1, min(cores, int(memory / MEMORY_PER_WORKER_GIB), 12))
    setting = os.environ.get("nnUNet_n_proc_DA")  # noqa: SIM112 - nnU-Net spells it so
    if setting is None:
        text = f"{cores} cores; nnUNet_n_proc_DA is not set, nnU-Net chooses by host name or takes 12"
        more = cores < 12
        yield Finding(
            "warning" if more else "ok", "workers", text, f"export nnUNet_n_proc_DA={suggested}" if more else ""
        )
    else:
        yield Finding("ok", "workers", f"{cores} cores; nnUNet_n_proc_DA={setting} (suggested: {suggested})")


def _pages() -> Iterator[Finding]:
    """What our trainers and ``livseg segment`` set by themselves on a CPU, and nnU-Net's own programs do not."""
    import torch

    if torch.cuda.is_available() or not on_glibc():
        return
    if all(os.environ.get(name) for name in ENVIRONMENT):
        yield Finding("ok", "memory pages", "kept in every process, by MALLOC_MMAP_THRESHOLD_")
        return
    text = "our trainers and livseg segment keep them on a CPU; other trainers and nnUNetv2_predict are faster with:"
    yield Finding("ok", "memory pages", text, "export " + " ".join(f"{k}={v}" for k, v in ENVIRONMENT.items()))
