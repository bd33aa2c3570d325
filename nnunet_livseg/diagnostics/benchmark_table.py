"""What ``livseg benchmark`` measured, as a table for documents and as JSON."""

from dataclasses import asdict

from nnunet_livseg.diagnostics.benchmark import BenchmarkResult, NetworkCost
from nnunet_livseg.diagnostics.training_cost import hours_by_step
from nnunet_livseg.reference_networks import PATCH

ROLES = ("stock", "variant")


def to_json(result: BenchmarkResult) -> dict:
    """Everything measured, with the setting, and hours of nnU-Net's 1000 epochs where they are known."""
    dim = len(result.setting.patch)
    rows = [
        {role: asdict(one) | {"hours": hours_by_step(one, dim)} for role, one in zip(ROLES, pair, strict=True)}
        for pair in result.pairs
    ]
    return {"schema": 1, "setting": asdict(result.setting), "networks": rows}


def to_markdown(result: BenchmarkResult) -> str:
    """A table with the ratio to the stock network beside each figure."""
    s = result.setting
    memory = "peak of a step" if s.device == "cuda" else "kept for backward"
    how = "float32" if s.device == "cpu" else "mixed precision" + (", torch.compile" if s.compiled else "")
    patch, dim = "x".join(map(str, s.patch)), len(s.patch)
    heads = ["network", "parameters", "FLOPs (forward)", "training step", f"memory ({memory})", "inference (1 patch)"]
    counted = dim == 3  # whose hours are stored, see training_cost
    heads += ["1000 epochs"] * counted
    lines = [
        f"{s.device_name}, {s.threads} threads, {patch}, batch {s.batch}, {how}, torch {s.torch}, "
        f"medians of {s.repeats}. Ratios are to nnU-Net's own network in the same run.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for stock, ours in result.pairs:
        for figures in (stock, ours) if (stock, ours) == result.pairs[0] else (ours,):
            hours = hours_by_step(figures, dim)
            cells = [*_cells(figures, stock), *["" if hours is None else f"{hours:,.0f} h"] * counted]
            lines.append(f"| {' | '.join(cells)} |")
    if counted:
        reference = "x".join(map(str, PATCH[dim]))
        lines += ["", f"1000 epochs: nnU-Net's training at {reference}, batch 2, at the speed of the measured step."]
    return "\n".join(lines)


def _cells(figures: NetworkCost, stock: NetworkCost) -> list[str]:
    def with_ratio(text: str, name: str) -> str:
        ratio = getattr(figures, name) / getattr(stock, name)
        return text if figures is stock else f"{text} ({ratio:.2f}x)"

    return [
        figures.name,
        with_ratio(f"{figures.parameters / 1e6:.2f}M", "parameters"),
        with_ratio(f"{figures.flops / 1e9:.1f} G", "flops"),
        with_ratio(f"{figures.step_s * 1e3:.0f} ms", "step_s"),
        with_ratio(f"{figures.memory_mib:.0f} MiB", "memory_mib"),
        with_ratio(f"{figures.inference_s * 1e3:.0f} ms", "inference_s"),
    ]
