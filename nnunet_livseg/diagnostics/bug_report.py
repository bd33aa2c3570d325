"""An installation as one JSON object for bug reports, without personal paths."""

import getpass
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from nnunet_livseg import __version__
from nnunet_livseg.core.findings import Finding
from nnunet_livseg.core.nnunet_folders import VARIABLES
from nnunet_livseg.diagnostics.machine import GIB, memory_gib, processor_name, usable_cores
from nnunet_livseg.startup import OPT_OUT, VARIABLE, discovery_folder

FORMAT = 1  # rises when a key changes its meaning or goes
SETTINGS = (  # beside nnU-Net's folders; what changes how a training runs
    *("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_compile", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", OPT_OUT),
    *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"),
)


def bug_report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Versions, machine, settings and findings of ``livseg doctor``; ``docs/troubleshooting.md`` names the keys.

    Nothing here raises: a value that cannot be determined is ``None``. Folders of nnU-Net, the home folder and the
    user's name are replaced by ``$nnUNet_raw``, ``~`` and ``USER`` in every text.

    Args:
        findings: What ``doctor.examine`` has found.
    """
    report = {
        "format": FORMAT,
        "nnunet_livseg": __version__,
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "processor": {"name": _or_none(processor_name), "usable_cores": _or_none(usable_cores)},
        "memory_gib": _or_none(lambda: round(memory_gib(), 1)),
        "torch": _or_none(_torch_build),
        "devices": _or_none(_devices),
        "packages": {name: _version(name) for name in requirements()},
        "extras": {extra: _installed(extra) for extra in _extras()},
        "variables": {name: _folder_state(os.environ.get(name)) for name in VARIABLES},
        "settings": {name: os.environ.get(name) for name in SETTINGS},
        "trainer_folders": _trainer_folders(),
        "trainers_found": any(one.kind == "trainers" and one.severity == "ok" for one in findings),
        "findings": [finding.as_dict() for finding in findings],
    }
    return _without_person(report, _replacements(os.environ))


def _or_none(get: Callable[[], Any]) -> Any:
    """A value, or ``None`` where other people's code or the operating system does not give it."""
    try:
        return get()
    except Exception:
        return None


def _torch_build() -> dict[str, Any]:
    import torch

    return {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "threads": torch.get_num_threads()}


def _devices() -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        memory = round(gpu.total_memory / GIB, 1)
        found.append({"type": "cuda", "name": gpu.name, "memory_gib": memory, "capability": [gpu.major, gpu.minor]})
    if torch.backends.mps.is_available():
        found.append({"type": "mps"})
    return [*found, {"type": "cpu"}]


# --- what is installed ------------------------------------------------------------------------------------------------


def requirements(extra: str = "") -> list[str]:
    """Names of the packages that an extra requires here; without one, of those that are always required."""
    return sorted({one.name for one in _declared() if _is_of(one, extra)}, key=str.lower)


def _declared() -> list[Requirement]:
    with suppress(importlib.metadata.PackageNotFoundError):  # a checkout that is not installed
        return [Requirement(text) for text in importlib.metadata.requires("nnunet-livseg") or []]
    return []


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Whether it is of this extra, on this Python and platform; what is always required is of no extra."""
    always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return always if not extra else not always and requirement.marker.evaluate({"extra": extra})


def _extras() -> list[str]:
    with suppress(importlib.metadata.PackageNotFoundError):
        return sorted(importlib.metadata.metadata("nnunet-livseg").get_all("Provides-Extra") or [])
    return []


def _installed(extra: str) -> dict[str, Any]:
    versions = {name: _version(name) for name in requirements(extra)}
    return {"complete": None not in versions.values(), "packages": versions}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- settings, without paths ------------------------------------------------------------------------------------------


def _folder_state(value: str | None) -> str:
    if not value:
        return "not set"
    if not Path(value).is_dir():
        return "not a folder"
    return "writable" if os.access(value, os.W_OK) else "not writable"


def _trainer_folders() -> dict[str, Any]:
    """How many folders nnU-Net searches for trainers, and which of them is ours."""
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    ours = folders.index(discovery_folder()) if discovery_folder() in folders else None
    return {"count": len(folders), "index_of_ours": ours}


def _replacements(environment: Mapping[str, str]) -> list[tuple[re.Pattern, str]]:
    """What stands in the place of folders and names that say who the user is; the longest path first."""
    paths = {environment[name]: f"${name}" for name in VARIABLES if Path(environment.get(name, "")).is_absolute()}
    with suppress(RuntimeError):  # no home folder
        paths.setdefault(str(Path.home()), "~")
    paths.setdefault(sys.prefix, "ENVIRONMENT")
    ordered = sorted((path for path in paths if len(path) > 1), key=len, reverse=True)  # not "/"
    patterns = [(re.compile(re.escape(path.rstrip("/\\")) + r"(?![\w.-])"), paths[path]) for path in ordered]
    with suppress(Exception):  # no user of this number
        patterns.append((re.compile(r"(?<=[/\\])" + re.escape(getpass.getuser()) + r"(?![\w.-])"), "USER"))
    return patterns


def _without_person(value: Any, replacements: Sequence[tuple[re.Pattern, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _without_person(entry, replacements) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_person(entry, replacements) for entry in value]
    if isinstance(value, str):
        for pattern, name in replacements:
            value = pattern.sub(name, value)
    return value
