"""Engines: torch, and what runs an exported network in its place, ONNX Runtime or OpenVINO, on the CPU.

They compute in float32. Those with ``-bfloat16`` round to 8 bits of precision, a shortcut whose Dice
docs/evidence/performance.md has. An exported network is data here: no class of it is imported, so a model of somebody
else's class runs without that class.
"""

# Shape letters: B batch, C image channels, K output channels, *S patch

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json
from nnunet_livseg.core.names import did_you_mean, shell_path
from nnunet_livseg.inference.devices import multiplies_bfloat16

TORCH, TORCH_BFLOAT16 = IN_TORCH = ("torch", "torch-bfloat16")  # these need no export
NETWORK = "network.onnx"  # in every fold of an exported folder, see export_model
RECORD = "export.json"  # in the folder itself
BFLOAT16 = "openvino-bfloat16"
_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino", BFLOAT16: "openvino"}  # of pyproject.toml
ENGINES = (*IN_TORCH, *_EXTRAS)
FLOAT32 = ("onnxruntime", "openvino")  # which must give torch's labels

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Exported:
    """The content of an exported folder, from its ``export.json``.

    Args:
        folder: The folder.
        content: Content of the file.
    """

    folder: Path
    content: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Exported":
        """Read the record of an exported folder.

        Raises:
            UserError: The folder was not exported, or the record is damaged.
        """
        if not (folder / RECORD).is_file():
            raise UserError(
                f"{folder.name} was not exported, so only torch can run it.\n  Export it: livseg export"
                f" {shell_path(folder)} -o FOLDER"
            )
        keys = ("configuration", "trainer", "mirroring_axes", "input_shape", "parity", "not_exported")
        return cls(folder, read_json(folder / RECORD, keys=keys, remedy="Export the model again."))

    def require(self, engine: str) -> str:
        """Reject an engine that cannot run the model; returns the text that describes the engine in results.

        Raises:
            UserError: The export found that it cannot, or the engine does not run here.
        """
        if reason := self.content["not_exported"].get(engine):
            raise UserError(f"{self.folder.name} does not run in {engine}: {reason}\n  Use --engine {TORCH}.")
        require_usable(engine)
        checked = all(engine in of_fold for of_fold in self.content["parity"].values())
        return _described(engine) + ("" if checked else ", not compared with torch")

    def network(self, engine: str, folds: Sequence[str]) -> "EngineNetwork":
        """The networks of ``folds``.

        Raises:
            UserError: A file is damaged.
        """
        files = [self.folder / f"fold_{fold}" / NETWORK for fold in folds]
        return EngineNetwork(files, engine, shape=self.content["input_shape"])


def require_engine(engine: str, folders: Sequence[Path], device: object) -> str:
    """What results say of the engine that runs the models in ``folders``; empty for torch in float32.

    Raises:
        UserError: There is no such engine, or it cannot run a model, or not on this device.
    """
    if engine not in ENGINES:
        raise UserError(
            f"there is no engine {engine!r}.{did_you_mean(engine, ENGINES)}\n  Known: {', '.join(ENGINES)}."
        )
    if engine == TORCH:
        return ""
    if device is not None and str(device) != "cpu":
        raise UserError(f"the engine {engine} computes on the CPU, not on {device}. Omit the device, or the engine.")
    if engine in IN_TORCH:
        require_usable(engine)
        return _described(engine)
    remarks = [Exported.open(folder).require(engine) for folder in folders]
    return remarks[0]


def is_usable(engine: str) -> bool:
    """Whether the engine runs here."""
    try:
        require_usable(engine)
    except UserError:
        return False
    return True


def require_usable(engine: str) -> None:
    """Reject an engine whose library is not installed, or whose precision the processor lacks.

    Raises:
        UserError: The message says what to install, or what to take.
    """
    if find_spec(engine.partition("-")[0]) is None:
        raise UserError(
            f"the engine {engine} is not installed.\n  pip install 'nnunet-livseg[{_EXTRAS[engine]}]', or use --engine"
            f" {TORCH}."
        )
    if engine in _IN_BFLOAT16 and not _IN_BFLOAT16[engine]():
        library = engine.partition("-")[0]
        raise UserError(
            f"{library} {version(library)} does not compute in bfloat16 on this processor."
            f"\n  Use --engine {library}, which is float32."
        )


def _described(engine: str) -> str:
    library, _, precision = engine.partition("-")
    return f"{library} {version(library)}, {precision or 'float32'}"


class EngineNetwork(nn.Module):
    """The networks of a model's folds, in the place of the one torch network into which nnU-Net loads each fold.

    Args:
        files: ONNX files, one per fold.
        engine: One of ``ENGINES``, but none of ``IN_TORCH``.
        shape: ``(1, C, *S)`` of the input.

    Raises:
        UserError: A file is damaged, or takes another input.
    """

    def __init__(self, files: Sequence[Path], engine: str, *, shape: Sequence[int]) -> None:
        super().__init__()
        self.runs = [_opened(path, engine, tuple(shape)) for path in files]
        self.run = self.runs[0]

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, *S)`` to logits ``(B, K, *S)``, case by case: a case's logits do not depend on its batch."""
        return torch.cat([torch.from_numpy(self.run(case[None].contiguous().numpy())) for case in x])

    def load_state_dict(self, fold: int) -> None:
        """Switch to the network of this fold."""
        self.run = self.runs[fold]


def _opened(path: Path, engine: str, shape: tuple[int, ...]) -> Run:
    try:
        run, found = _OPENERS[engine](path)
    except Exception as error:  # both raise errors of their own kinds
        raise _damaged(path, str(error).strip().splitlines()[0]) from error
    if found != shape:
        raise _damaged(path, f"its input is {found}, not {shape}")
    return run


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} cannot be opened: {why}.\n  Export the model again.")


def _in_onnxruntime(path: Path) -> tuple[Run, tuple[int, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: session.run(None, {given.name: x})[0], tuple(given.shape)


def _in_openvino(path: Path, precision: str = "f32") -> tuple[Run, tuple[int, ...]]:
    compiled = openvino_core().compile_model(
        str(path),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,  # by itself it takes bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # two processes would share the first cores
        },
    )
    return lambda x: compiled(x)[0], tuple(compiled.input(0).shape)


def openvino_core() -> Any:
    """OpenVINO's ``Core``, without the message to its makers that importing it would send."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # then OpenVINO takes its own stub
    import openvino

    return openvino.Core()


def _openvino_multiplies_bfloat16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


_IN_BFLOAT16 = {TORCH_BFLOAT16: multiplies_bfloat16, BFLOAT16: _openvino_multiplies_bfloat16}
_OPENERS = {
    "onnxruntime": _in_onnxruntime,
    "openvino": _in_openvino,
    BFLOAT16: partial(_in_openvino, precision="bf16"),
}
