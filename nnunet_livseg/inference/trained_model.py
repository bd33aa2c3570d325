"""A trained model of nnU-Net as a folder: its files, folds and labels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from pydoc import ErrorDuringImport

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import Structures
from nnunet_livseg.core.names import did_you_mean
from nnunet_livseg.core.nnunet_folders import fold_folders, read_plans
from nnunet_livseg.data.raw_dataset import RawDataset

CHECKPOINT = "checkpoint_final.pth"
# no trainer or network class of that name, an import that fails, damaged weights, weights of another network
LOAD_ERRORS = (RuntimeError, UnpicklingError, EOFError, ImportError, AttributeError, TypeError, ErrorDuringImport)
SAFE_CHECKPOINT = "checkpoint_final.safetensors"  # see safe_weights


@dataclass(frozen=True)
class TrainedModel:
    """A folder ``TRAINER__PLANS__CONFIGURATION`` of ``nnUNet_results``, from any nnU-Net training.

    Args:
        folder: The folder.
        folds: Folds to average.
        checkpoint: File name of the weights, nnU-Net's or safetensors.
        dataset: Channels and labels of the dataset that it was trained on.
        requested_folds: Those of ``folds`` that were asked for; empty where all were taken because none was.
    """

    folder: Path
    folds: tuple[str, ...]
    checkpoint: str
    dataset: RawDataset
    requested_folds: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, folder: str | Path, *, folds: tuple[str | int, ...] | None = None, checkpoint: str = CHECKPOINT
    ) -> "TrainedModel":
        """Read a model folder; ``folds`` defaults to all trained ones but ``all``, as in nnU-Net.

        A model whose weights are safetensors is found by the default ``checkpoint``, too.

        Raises:
            UserError: The folder is no model, or the folds or weights asked for are not in it.
        """
        folder = Path(folder).absolute()
        if not (folder / "plans.json").is_file():
            raise UserError(
                f"{folder} is not a model folder: it has no plans.json.{_models_below(folder)}"
                "\n  Give a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results."
            )
        if checkpoint == CHECKPOINT and not any(folder.glob(f"fold_*/{CHECKPOINT}")):
            checkpoint = SAFE_CHECKPOINT if any(folder.glob(f"fold_*/{SAFE_CHECKPOINT}")) else checkpoint
        trained = _trained_folds(folder, checkpoint)
        named = tuple(dict.fromkeys(map(str, folds or ())))  # each once
        wanted = named or tuple(fold for fold in trained if fold != "all") or trained
        missing = [fold for fold in wanted if fold not in trained]
        if missing:
            there = ", ".join(f"fold_{fold}" for fold in trained)
            raise UserError(
                f"{folder.name} has no {checkpoint} of fold {missing[0]}; trained: {there}."
                f"{did_you_mean(missing[0], trained)}"
            )
        model = cls(folder, wanted, checkpoint, RawDataset.open(folder), named)
        _ = model.plans, model.structures  # rejects damaged plans, and labels that its label maps would lack
        return model

    @property
    def name(self) -> str:
        """Dataset and folder, without the folders above."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def plans(self) -> dict:
        """Content of ``plans.json``.

        Raises:
            UserError: It is damaged.
        """
        return read_plans(self.folder / "plans.json")

    @cached_property
    def structures(self) -> Structures:
        """What its labels are; the liver includes its tumors."""
        return self.dataset.structures

    @cached_property
    def previous_configuration(self) -> str | None:
        """The configuration whose label maps a cascade model reads; None for every other model.

        Raises:
            UserError: The folder was renamed, so that nobody knows its configuration.
        """
        configuration, configurations = self.folder.name.split("__")[-1], self.plans["configurations"]
        if configuration not in configurations and len(configurations) == 1:
            (configuration,) = configurations
        if configuration not in configurations:
            raise UserError(
                f"the folder {self.folder.name} was renamed: its name says which configuration of its plans it is"
                f"\n  ({', '.join(configurations)}). Name it TRAINER__PLANS__CONFIGURATION again."
            )
        return configurations[configuration].get("previous_stage")

    @cached_property
    def previous_stage(self) -> "TrainedModel | None":
        """The model of the previous configuration, with the folds that were asked for where it has them, else all.

        Raises:
            UserError: It is not beside this one.
        """
        if self.previous_configuration is None:
            return None
        *training, _ = self.folder.name.split("__")
        folder = self.folder.with_name("__".join([*training, self.previous_configuration]))
        if not folder.is_dir():
            raise UserError(
                f"{self.folder.name} is the second model of nnU-Net's cascade and reads the first one's label maps,\n"
                f"  but {folder.name} is not beside it. Copy it there, or give a model of another configuration."
            )
        trained = _trained_folds(folder, self.checkpoint)
        named = tuple(fold for fold in self.requested_folds if fold in trained)
        return TrainedModel.open(folder, folds=named, checkpoint=self.checkpoint)


def load_error(model: TrainedModel, error: Exception) -> UserError:
    """The reason why nnU-Net could not load a model: a missing extension, or missing files."""
    text = (str(error).strip() or "a file of weights ends early").splitlines()[0].split(". ")[0]
    remedy = "Was it trained with an extension of nnU-Net that is not installed here? See livseg doctor."
    if isinstance(error, (ImportError, AttributeError, TypeError, ErrorDuringImport)):
        architectures = (one.get("architecture") or {} for one in model.plans["configurations"].values())
        names = sorted({one["network_class_name"] for one in architectures if "network_class_name" in one})
        text = f"its network, {' or '.join(names)}, is not installed or does not take the plans' arguments ({text})"
    elif "loading state_dict" in text:
        text = "its weights are of another network than its plans.json"
        remedy = "Copy the whole folder of one training again."
    elif "trainer" not in text.lower():
        remedy = f"Was it copied completely? {remedy}"
    return UserError(f"{model.folder.name} cannot be loaded: {text}.\n  {remedy}")


def _trained_folds(folder: Path, checkpoint: str) -> tuple[str, ...]:
    if found := fold_folders(folder, checkpoint):
        return tuple(found)
    found = list(folder.glob("fold_*/checkpoint_*.pth"))
    others = sorted({path.name for path in found} - {checkpoint})
    remedy = "Its training has not begun, or it was copied without weights. Train it, or copy the whole folder."
    if copies := sorted({path.parent.name for path in found if path.name == checkpoint}):
        remedy = f"{copies[0]} has it, but is not the name of a fold. Rename it to fold_0, ..., or fold_all."
    elif others:
        remedy = f"It has {', '.join(others)}. Wait for the end of the training, or use it as it is: -chk {others[0]}"
    raise UserError(f"{folder.name} has no fold with {checkpoint}.\n  {remedy}")


def _models_below(folder: Path) -> str:
    plans = sorted(folder.glob("**/plans.json")) if folder.is_dir() else []  # nnU-Net's predictions have some too
    found = [path.parent for path in plans if any(path.parent.glob("fold_*"))][:3]
    return f" Models below it: {', '.join(str(path.relative_to(folder)) for path in found)}." if found else ""
