"""What ``livseg benchmark`` measured, as a table for documents and as JSON."""

from dataclasses import asdict

from nnunet_livseg.diagnostics.benchmark import BenchmarkResult, NetworkCost


def to_json(result: BenchmarkResult) -> dict:
    """Everything measured, with the setting."""
    rows = [{"stock": asdict(stock), "variant": asdict(ours)} for stock, ours in result.pairs]
    return {"schema": 1, "setting": asdict(result.setting), "networks": rows}


def to_markdown(result: BenchmarkResult) -> str:
    """A table with the ratio to the stock network beside each figure."""
    s = result.setting
    memory = "peak of a step" if s.device == "cuda" else "kept for backward"
    how = "float32" if s.device == "cpu" else "mixed precision" + (", torch.compile" if s.compiled else "")
    patch = "x".join(map(str, s.patch))
    lines = [
        f"{s.device_name}, {s.threads} threads, {patch}, batch {s.batch}, {how}, torch {s.torch}, "
        f"medians of {s.repeats}. Ratios are to nnU-Net's own network in the same run.",
        "",
        f"| network | parameters | FLOPs (forward) | training step | memory ({memory}) | inference (1 patch) |",
        "|---|---|---|---|---|---|",
    ]
    for stock, ours in result.pairs:
        if (stock, ours) == result.pairs[0]:
            lines.append(_markdown_row(stock, stock))
        lines.append(_markdown_row(ours, stock))
    return "\n".join(lines)


def _markdown_row(figures: NetworkCost, stock: NetworkCost) -> str:
    def with_ratio(text: str, name: str) -> str:
        ratio = getattr(figures, name) / getattr(stock, name)
        return text if figures is stock else f"{text} ({ratio:.2f}x)"

    cells = [
        figures.name,
        with_ratio(f"{figures.parameters / 1e6:.2f}M", "parameters"),
        with_ratio(f"{figures.flops / 1e9:.1f} G", "flops"),
        with_ratio(f"{figures.step_s * 1e3:.0f} ms", "step_s"),
        with_ratio(f"{figures.memory_mib:.0f} MiB", "memory_mib"),
        with_ratio(f"{figures.inference_s * 1e3:.0f} ms", "inference_s"),
    ]
    return f"| {' | '.join(cells)} |"
