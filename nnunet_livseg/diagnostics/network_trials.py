"""Try a user's network on noise in a small patch, to find faults that only values show."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_livseg.core.findings import Finding
from nnunet_livseg.core.names import as_size
from nnunet_livseg.diagnostics.benchmark import (
    BenchmarkedNetwork,
    BenchmarkSetup,
    memory_mib,
    outputs_of,
    seconds_in_turns,
)
from nnunet_livseg.diagnostics.counted_cost import on_meta
from nnunet_livseg.diagnostics.half_precision import mixed_precision
from nnunet_livseg.diagnostics.network_task import NetworkTask
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.reference_networks import build

EDGES = {2: (64, 128, 256, 512), 3: (32, 64, 96, 128)}  # of the patch, the smallest that the network takes
BATCH = 2
SHOWN = 3  # names in a message
PREFIX = "network."  # of the user's network in ours


@dataclass(frozen=True)
class _Trial:
    task: NetworkTask
    subject: BenchmarkedNetwork

    @property
    def network(self) -> nn.Module:
        return self.subject.bare

    @property
    def device(self) -> str:
        return self.subject.setting.device


def try_network(task: NetworkTask, *, device: str) -> Iterator[Finding]:
    """Findings of all trials; one that fails by itself is a finding, and ends the rest only if nothing can be trained.

    Args:
        task: Its configuration says which outputs the network has.
        device: ``"cpu"`` or ``"cuda"``; the GPU also times the plan's own patch.
    """
    small = _smallest(task)
    where = "on the GPU" if device == "cuda" else "on the CPU"
    yield Finding("ok", "trial", task.name, f"the lines below: noise, {as_size(small.patch)}, batch {BATCH}, {where}")
    trial = _Trial(small, _subject(small, small.own, small.patch, BATCH, device))
    for kind, severity, attempt in TRIALS:
        try:
            found = list(attempt(trial))
        except Exception as error:  # a stranger's network may raise anything
            text = f"fails: {type(error).__name__}: {_first_line(error)}"
            found = [_finding(severity, kind, text, "Run the network in Python for the full traceback.")]
        yield from (replace(finding, case=task.name) for finding in found)
        if kind == "training step" and any(finding.severity == "error" for finding in found):
            return
    yield from _time(task, small, device)


def _smallest(task: NetworkTask) -> NetworkTask:
    for edge in EDGES[len(task.patch)]:
        smaller = task.at([min(edge, size) for size in task.patch])
        if smaller.runs():
            return smaller.with_outputs()
    return task


def _subject(
    task: NetworkTask, configuration: dict[str, Any], patch: tuple[int, ...], batch: int, device: str
) -> BenchmarkedNetwork:
    setting = BenchmarkSetup(
        patch, batch, device, "", repeats=2, threads=torch.get_num_threads(), compiled=False, torch=""
    )
    network = build(configuration, channels=task.channels, classes=task.classes)
    outputs = outputs_of(network, configuration)
    loss = MultiOutputLoss(LOSSES["dice_ce"](task.labels, False, False), outputs)
    strides, channels = target_strides(outputs), task.channels
    return BenchmarkedNetwork(
        "own", network, loss, setting, flops=0.0, strides=strides, channels=channels, labels=task.labels
    )


def _finding(severity: str, kind: str, text: str, remedy: str = "") -> Finding:
    return Finding(severity, kind, None, f"{text}\n{remedy}".rstrip())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name.removeprefix(PREFIX) for name in names[:SHOWN]) + more


# --- one trial each: they run in the order of TRIALS, on the same network ---------------------------------------------


def _step(trial: _Trial) -> Iterator[Finding]:
    before = {name for name, _ in trial.network.named_parameters()}
    loss = trial.subject.step()
    parameters = dict(trial.network.named_parameters())
    if late := [name for name in parameters if name not in before]:
        text = f"forward creates parameters, which is too late for the optimizer: {_names(late)}"
        yield _finding("error", "training step", text, "Create them in __init__; otherwise they are not trained.")
        return
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    wrong = [name for name, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    if wrong or not loss.isfinite():
        text = f"loss {float(loss):.3g}; gradients that are not finite: {_names(wrong) or 'none'}"
        yield _finding("error", "training step", text, "Look for divisions by zero, log, sqrt and large exponents.")
        return
    yield _finding("ok", "training step", f"loss and gradients are finite (loss {float(loss):.3g})")
    without = [name for name, p in trained.items() if p.grad is None]
    if without:
        remedy = (
            "They keep their initial values, and a training on several GPUs (DDP) stops."
            "\nRemove them, or set requires_grad=False."
        )
        text = f"{len(without)} of {len(trained)} parameters have none: {_names(without)}"
        yield _finding("warning", "gradient", text, remedy)
    else:
        frozen = len(parameters) - len(trained)
        also = f"; {frozen} are frozen" if frozen else ""
        yield _finding("ok", "gradient", f"all {len(trained)} parameters have one{also}")


def _predict(network: nn.Module, x: Tensor) -> Tensor:
    network.eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        return network(x[:1]).float()


def _prediction(trial: _Trial) -> Iterator[Finding]:
    x = trial.subject.x
    logits, again = _predict(trial.network, x), _predict(trial.network, x)
    expected = (1, trial.task.classes, *trial.task.patch)
    if tuple(logits.shape) != expected:
        text = f"in evaluation, one patch gives {as_size(logits.shape)}, but nnU-Net needs {as_size(expected)}"
        yield _finding("error", "prediction", text, "Return the logits first, in training and in evaluation.")
    elif not _same(logits, again):
        text = "in evaluation, two calls with the same patch give different logits"
        remedy = "Look for random numbers, and for state that forward changes in evaluation."
        yield _finding("warning", "prediction", text, remedy)
    elif _are_probabilities(logits):
        text = "in evaluation, the outputs look like probabilities, but nnU-Net applies softmax or sigmoid itself"
        yield _finding("warning", "prediction", text, "Return logits: remove the last softmax or sigmoid.")
    else:
        yield _finding("ok", "prediction", f"logits of one patch: {as_size(logits.shape)}")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def _are_probabilities(logits: Tensor) -> bool:
    return bool(logits.min() >= 0 and logits.max() <= 1) and (
        logits.shape[1] == 1 or _same(logits.sum(1), torch.ones_like(logits[:, 0]))
    )


def _checkpoint(trial: _Trial) -> Iterator[Finding]:
    """A new network with the saved weights must predict as the trained one."""
    x, network = trial.subject.x, trial.network
    expected = _predict(network, x)
    if not _same(expected, _predict(network, x)):
        yield _finding("ok", "checkpoint", "cannot be compared, because two predictions differ")
        return
    anew = build(trial.task.own, channels=trial.task.channels, classes=trial.task.classes).to(trial.device)
    anew.load_state_dict(network.state_dict())
    if _same(expected, _predict(anew, x)):
        yield _finding("ok", "checkpoint", "a network made from the saved weights predicts the same")
        return
    remedy = (
        "A checkpoint has parameters and buffers only: state in other attributes is lost when training ends."
        "\nMake it a parameter, or call register_buffer."
    )
    yield _finding("error", "checkpoint", "a network made from the saved weights predicts something else", remedy)


def _float16(trial: _Trial) -> Iterator[Finding]:
    first: list[str] = []
    hooks = [module.register_forward_hook(_watch(name, first)) for name, module in trial.network.named_modules()]
    trial.network.train()
    try:
        with torch.no_grad(), mixed_precision(trial.device):
            trial.network(trial.subject.x)
    finally:
        for hook in hooks:
            hook.remove()
    if not first:
        how = "" if trial.device == "cuda" else ", by its range of values"
        yield _finding("ok", "float16", f"outputs are finite{how}")
        return
    named = "its own forward" if f"{first[0]}." in (".", PREFIX) else first[0].removeprefix(PREFIX)
    remedy = (
        "nnU-Net trains in float16 on a GPU, so every step there would be skipped."
        "\nDisable autocast around this part, or keep its values below 65504."
    )
    yield _finding("error", "float16", f"infinity or NaN, first after {named}", remedy)


def _watch(name: str, first: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = [one for one in (output if isinstance(output, list | tuple) else [output]) if isinstance(one, Tensor)]
        if not first and not all(tensor.isfinite().all() for tensor in tensors):
            first.append(name)

    return look


def _compile(trial: _Trial) -> Iterator[Finding]:
    """Only torch's tracing (dynamo) runs, and no compiler."""
    network, x = trial.network, trial.subject.x
    try:
        network, x = on_meta(trial.task.own, shape=tuple(x.shape), classes=trial.task.classes)
        network.train()(x)
    except Exception:  # not every network runs there
        network, x = trial.network.train(), trial.subject.x
    network.decoder.deep_supervision = True
    with _quiet():
        found = torch._dynamo.explain(network)(x)
    if not found.graph_break_count:
        yield _finding("ok", "torch.compile", "one graph, no break")
        return
    reason = found.break_reasons[0]
    frame = reason.user_stack[-1] if reason.user_stack else None
    place = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""
    count = found.graph_break_count
    text = f"{count} graph break{'s' * (count > 1)}, the first: {reason.reason.strip().splitlines()[0]}{place}"
    remedy = "The network trains, but slower than it could. export nnUNet_compile=f switches torch.compile off."
    yield _finding("warning", "torch.compile", text, remedy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs about graphs; what it has traced is forgotten afterwards."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch._dynamo.reset()


TRIALS: tuple[tuple[str, str, Callable[[_Trial], Iterator[Finding]]], ...] = (  # kind, severity if it fails, trial
    ("training step", "error", _step),
    ("prediction", "error", _prediction),
    ("checkpoint", "error", _checkpoint),
    ("float16", "warning", _float16),
    ("torch.compile", "warning", _compile),
)


def _time(task: NetworkTask, small: NetworkTask, device: str) -> Iterator[Finding]:
    """A training step in turns with nnU-Net's network: at the plan's patch on a GPU, at the small one on a CPU."""
    timed, batch = (task, task.stock["batch_size"]) if device == "cuda" else (small, BATCH)
    try:
        subjects = [_subject(timed, own, timed.patch, batch, device) for own in (timed.stock, timed.own)]
        stock, own = seconds_in_turns([s.step for s in subjects], subjects[0].setting, before=1)
        memory = [memory_mib(subject, subject.setting) for subject in subjects] if device == "cuda" else []
    except RuntimeError as error:  # not enough memory
        yield Finding("warning", "step time", task.name, f"cannot be measured: {_first_line(error)}")
        return
    text = f"{own:.2f} s at {as_size(timed.patch)}, batch {batch} ({own / stock:.2f}x nnU-Net's network)"
    yield Finding("ok", "step time", task.name, text)
    if memory:
        text = f"{memory[1]:.0f} MiB at most in a step ({memory[1] / memory[0]:.2f}x nnU-Net's network)"
        yield Finding("ok", "GPU memory", task.name, text)
