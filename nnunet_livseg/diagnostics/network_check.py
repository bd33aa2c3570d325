"""Check before training whether nnU-Net can train a user's network, and what that costs."""

from collections.abc import Iterator, Sequence

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.findings import Finding
from nnunet_livseg.core.names import as_size
from nnunet_livseg.diagnostics.counted_cost import counted_cost
from nnunet_livseg.diagnostics.network_task import REFERENCE, NetworkTask, takes
from nnunet_livseg.diagnostics.network_trials import try_network
from nnunet_livseg.networks.outputs import nnunet_weights

MIB = 2**20


def check_network(tasks: Sequence[NetworkTask], *, device: str = "cpu") -> Iterator[Finding]:
    """All findings, each as soon as it is known: shapes and cost of every task, and trials once for 2D and for 3D."""
    tried = set()
    for task in tasks:
        try:
            described = task.with_outputs()
        except UserError as error:
            yield Finding("error", "patch", task.name, f"{error}{_other_dimensions(task)}")
            continue
        yield from _shapes(described)
        yield from _costs(described)
        if len(task.patch) not in tried:
            tried.add(len(task.patch))
            yield from try_network(described, device=device)


def _other_dimensions(task: NetworkTask) -> str:
    """A remedy for a network that takes images of other dimensions alone."""
    dims = 5 - len(task.patch)
    kwargs = task.own["architecture"]["arch_kwargs"]
    if not takes(kwargs["network"], kwargs["arguments"], dims):
        return ""
    return f"\nIt takes {dims}D images: -c {REFERENCE[dims]}, or without a dataset --patch with {dims} numbers."


def _shapes(task: NetworkTask) -> Iterator[Finding]:
    strides = task.own["architecture"]["arch_kwargs"]["outputs"]
    yield Finding("ok", "patch", task.name, f"{as_size(task.patch)}, batch {task.stock['batch_size']}")
    if len(strides) == 1:
        yield Finding("ok", "outputs", task.name, "1, so no deep supervision")
        return
    named = [f"{as_size(s)} ({w:.2f})" for s, w in zip(strides, nnunet_weights(len(strides)), strict=True)]
    yield Finding("ok", "outputs", task.name, f"{len(strides)}, at strides (and weights): {', '.join(named)}")


def _costs(task: NetworkTask) -> Iterator[Finding]:
    """Parameters, FLOPs and memory beside nnU-Net's network, counted at the task's patch and batch."""
    try:
        own, stock = (counted_cost(of, shape=task.shape, classes=task.classes) for of in (task.own, task.stock))
    except Exception as error:  # a stranger's network may need values
        text = f"cannot be counted without values ({type(error).__name__}), so only the step is timed"
        yield Finding("ok", "cost", task.name, text)
        return
    flops, saved = own.forward_flops / 1e9, own.saved_bytes / MIB
    shown = f"{own.parameters / 1e6:.2f}M" if own.parameters >= 1e5 else f"{own.parameters:,}"
    text = f"{shown}{_beside(own.parameters, stock.parameters)}"
    yield Finding("ok", "parameters", task.name, text)
    shown = f"{flops:,.0f}" if flops >= 10 else f"{flops:.2f}"
    text = f"{shown} G, forward pass of a batch{_beside(own.forward_flops, stock.forward_flops)}"
    yield Finding("ok", "FLOPs", task.name, text)
    shown = f"{saved / 1024:.2f} GiB" if saved >= 100 else f"{saved:.1f} MiB"
    text = f"{shown} saved for the backward pass in float32{_beside(own.saved_bytes, stock.saved_bytes)}"
    yield Finding("ok", "memory", task.name, text)


def _beside(ours: float, stock: float) -> str:
    ratio = ours / stock
    return f" ({ratio:.2f}x nnU-Net's network)" if ratio >= 0.1 else f" ({ratio:.1g}x nnU-Net's network)"
