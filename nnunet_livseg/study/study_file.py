"""The study file: rows x presets x recipes x datasets x configurations x folds x seeds, in TOML."""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.names import did_you_mean, file_name, shell_path
from nnunet_livseg.plans import RECIPES, Overrides
from nnunet_livseg.variants import VARIANTS, find_variant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")  # a cascade needs all folds of another one first
DEVICES = ("cuda", "cpu", "mps")
_OWN = ("recipe", "init", "seed", "configurations", "options")  # entries of Overrides that are no [settings]


def _kind_in_toml(hint: Any) -> type | tuple[type, ...]:
    """What TOML has for ``KIND | None``."""
    kind = get_args(hint)[0]
    return {float: (int, float), tuple: list}.get(get_origin(kind) or kind, kind)


SETTINGS = {name: _kind_in_toml(hint) for name, hint in get_type_hints(Overrides).items() if name not in _OWN}

TEMPLATE = """\
# Every combination of these is trained; only datasets and rows are required.
datasets = ["{dataset}"]          # numbers or names
rows = {rows}     # variants, by their names in livseg list
baseline = "{baseline}"           # what the others are tested against
presets = ["default"]        # as livseg plan --preset
recipes = ["paper"]          # paper, nnunet
configurations = ["3d_fullres"]
folds = [0, 1, 2, 3, 4]      # numbers, or "all"
seeds = [0]                  # two and more show how far two runs of one method differ
device = "cuda"              # cuda, cpu, mps
gpus = 1                     # of this machine: one job at a time on each
test = false                 # true: predict imagesTs by all folds, and evaluate it where there is labelsTs

# [settings]                 # as the options of livseg plan: epochs, iterations, patch, batch, ...
# epochs = 200

# [slurm]                    # if this table is here, the jobs go to Slurm
# partition = "gpu"
# hours = 24
# cpus = 12
# memory_gb = 48
# setup = ["source /path/to/venv/bin/activate"]
"""


@dataclass(frozen=True)
class Slurm:
    """What a job asks Slurm for.

    Attributes:
        partition: Where to; empty: the site's default.
        hours: Time limit of a job; a training that needs more is continued in the next one.
        gpus: GPUs of a job; cpus: its processors; memory_gb: its memory, 0: the site's default.
        at_once: Most jobs at the same time; 0: no limit.
        warning_s: How long before its end a job is told to save and leave.
        options: Other options of ``sbatch`` by name, such as ``account``.
        setup: Lines of shell that every job runs first.
    """

    partition: str = ""
    hours: float = 24.0
    gpus: int = 1
    cpus: int = 8
    memory_gb: int = 32
    at_once: int = 0
    warning_s: int = 180
    options: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study file, checked as far as that needs no dataset."""

    path: Path
    datasets: tuple[str, ...]
    rows: tuple[str, ...]
    baseline: str = ""
    presets: tuple[str, ...] = ("default",)
    recipes: tuple[str, ...] = ("paper",)
    configurations: tuple[str, ...] = ("3d_fullres",)
    folds: tuple[str, ...] = ("0", "1", "2", "3", "4")
    seeds: tuple[int | None, ...] = (None,)
    plans: str = "nnUNetPlans"
    device: str = "cuda"
    gpus: int = 1
    test: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    slurm: Slurm | None = None

    @property
    def folder(self) -> Path:
        """Where logs and results of the study lie: beside the file, with its name."""
        return self.path.with_suffix("")

    @property
    def title(self) -> str:
        """The study's name as a part of names of plans."""
        return re.sub(r"\W|_", "", self.path.stem.title())


def read_study(path: Path) -> Study:
    """The study in a file.

    Raises:
        UserError: It is not TOML, or a key, name or number in it is wrong.
    """
    if path.suffix != ".toml":
        raise UserError(f"{path}: the name of a study file must end in .toml; its results go to the folder before it.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no study file {path}.\n  Write one: livseg study new {shell_path(path)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.\n  Correct that line.") from None
    known = [entry.name for entry in fields(Study) if entry.name != "path"]
    _require_known(path, "key", content, known)
    for key in ("datasets", "rows"):
        if not content.get(key):
            raise UserError(f"{path} names no {key}, so there is nothing to train.\n  Add, for example: {key} = [...]")
    given = {key: _tuple(value) if _is_list(key) else value for key, value in content.items()}
    _require_kinds(path, given)
    for key in ("datasets", "folds"):
        if key in given:
            given[key] = tuple(str(value) for value in given[key])
    if "slurm" in given:
        given["slurm"] = _slurm(path, given["slurm"])
    return _checked(Study(path.absolute(), **given))


def _is_list(key: str) -> bool:
    return key in ("datasets", "rows", "presets", "recipes", "configurations", "folds", "seeds")


def _tuple(value: Any) -> tuple:
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else (value,)


def _require_known(path: Path, what: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(
                f"{path}: there is no {what} {name!r}.{did_you_mean(str(name), known)}\n  Known: {', '.join(known)}."
            )


def _require_kinds(path: Path, given: Mapping[str, Any]) -> None:
    kinds = {"gpus": int, "settings": dict, "slurm": dict, "device": str, "baseline": str, "plans": str}
    for key, value in given.items():
        if key == "test" and not isinstance(value, bool):
            raise UserError(f"{path}: test is {value!r}, but must be true or false.")
        if key in kinds and (not isinstance(value, kinds[key]) or isinstance(value, bool)):
            raise UserError(f"{path}: {key} is {value!r}, but must be a {_KINDS[kinds[key]]}.")
        if key == "seeds" and not all(isinstance(seed, int) and seed >= 0 for seed in value):
            raise UserError(f"{path}: seeds are {list(value)}, but must be whole numbers of at least 0.")
        if key == "folds" and not all(fold == "all" or str(fold).isdecimal() for fold in value):
            raise UserError(f'{path}: folds are {list(value)}, but must be numbers or "all".')
        if key in ("rows", "presets", "recipes", "configurations") and not all(isinstance(one, str) for one in value):
            raise UserError(f"{path}: {key} are {list(value)}, but must be names in quotes.")


_KINDS = {int: "whole number", str: "text in quotes", dict: "table, as in [settings]"}


def _slurm(path: Path, content: Mapping[str, Any]) -> Slurm:
    _require_known(path, "key of [slurm]", content, [entry.name for entry in fields(Slurm)])
    slurm = Slurm(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    for key in ("hours", "gpus", "cpus", "memory_gb", "at_once", "warning_s"):
        value, least = getattr(slurm, key), 0 if key in ("gpus", "at_once", "memory_gb") else 0.01
        if not isinstance(value, (int, float)) or value < least:
            raise UserError(f"{path}: {key} in [slurm] is {value!r}, but must be a number above 0.")
    if slurm.gpus > 1:
        raise UserError(
            f"{path}: gpus in [slurm] is {slurm.gpus}, but a training of a study uses one GPU, or 0 on a CPU."
        )
    return slurm


def _checked(study: Study) -> Study:
    path = study.path
    rows = tuple(dict.fromkeys(find_variant(row).name for row in study.rows))
    presets = dict.fromkeys(name for row in rows for name in ("default", *find_variant(row).presets))
    _require_known(path, "preset of these rows", study.presets, presets)
    _require_known(path, "recipe", study.recipes, RECIPES)
    _require_known(path, "configuration that a study trains", study.configurations, CONFIGURATIONS)
    _require_known(path, "device", (study.device,), DEVICES)
    _require_known(path, "key of [settings]", study.settings, SETTINGS)
    for key, value in study.settings.items():
        if not isinstance(value, SETTINGS[key]) or isinstance(value, bool):
            raise UserError(f"{path}: {key} in [settings] is {value!r}, which is not what livseg plan takes.")
    if study.gpus < 1:
        raise UserError(f"{path}: gpus is {study.gpus}, but must be at least 1.")
    values = {entry.name: getattr(study, entry.name) for entry in fields(study)}
    return Study(**values | {"rows": rows})


def new_study(path: Path, *, dataset: str, rows: Iterable[str]) -> None:
    """Write a study file to start from.

    Raises:
        UserError: The file is there, or a row is unknown.
    """
    from nnunet_livseg.core.files import write_text

    if path.suffix != ".toml" or file_name(path.name) != path.name:
        raise UserError(
            f"{path}: the name of a study file must end in .toml and hold letters, digits, dots, dashes and underscores"
            " only, such as study.toml."
        )
    if path.exists():
        raise UserError(f"{path} is there already and stays as it is.\n  Choose another name, or edit it.")
    names = [find_variant(row).name for row in rows] or _two_to_compare()
    quoted = ", ".join(f'"{name}"' for name in names)
    write_text(path, TEMPLATE.format(dataset=dataset, rows=f"[{quoted}]", baseline=names[0]))


def _two_to_compare() -> list[str]:
    """The first paper's network and the plain one that it is compared with."""
    return ["dpcnet-unet", next(row.name for row in VARIANTS)]
