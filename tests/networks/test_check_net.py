"""livseg check-net: every fault of a network is named, and a network without one passes."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunet_livseg.cli import main
from nnunet_livseg.diagnostics.half_precision import mixed_precision

QUICK = ("--patch", "32", "32", "-device", "cpu")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


@pytest.fixture
def check(capsys):
    """Exit status and findings, by kind."""

    def run(name, *args):
        status = main(["check-net", f"own_networks.{name}", *(args or QUICK), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert status == (found["errors"] > 0)
        return status, {finding["kind"]: (finding["severity"], finding["message"]) for finding in found["findings"]}

    return run


def test_a_network_without_a_fault(check, capsys):
    status, found = check("MonaiLike")
    assert status == 0 and {severity for severity, _ in found.values()} == {"ok"}
    assert found["outputs"][1] == "2, at strides (and weights): 1 x 1 (1.00), 2 x 2 (0.00)"
    assert found["parameters"][1].startswith("218 (")
    assert {"FLOPs", "memory", "gradient", "checkpoint", "float16", "torch.compile", "step time"} <= set(found)


@pytest.mark.parametrize(
    ("name", "kind", "severity", "message"),
    [
        ("Unused", "gradient", "warning", "2 of 6 parameters have none: forgotten.weight, forgotten.bias\nThey keep"),
        ("Overflows", "float16", "error", "infinity or NaN, first after head\n"),
        ("Odd", "patch", "error", "an output of shape 2 x 3 x 21 x 21, .* coarser ones by whole factors"),
        ("Keeps", "checkpoint", "error", "predicts something else\n.*register_buffer"),
        ("Branches", "torch.compile", "warning", r"graph break.*\(own_networks.py, line \d+\)"),
        ("Chance", "prediction", "warning", "two calls with the same patch give different logits"),
        ("Probabilities", "prediction", "warning", "look like probabilities"),
        ("Late", "training step", "error", "forward creates parameters, .*: late.weight, late.bias"),
        ("Infinite", "training step", "error", "loss nan"),
    ],
)
def test_a_fault_is_named(check, name, kind, severity, message):
    status, found = check(name)
    assert status == (severity == "error")
    assert found[kind][0] == severity
    assert re.search(f"(?s){message}", found[kind][1]), found[kind][1]
    others = {other for other, (found_severity, _) in found.items() if found_severity != "ok"} - {kind}
    assert not others, found


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Multiples", ("--patch", "40", "40"), "--patch 32 32 works; or change an argument"),
        ("SmpLike", ("--patch", "32", "32", "32", "--option", "depth=1"), "It takes 2D images: -c 2d"),
    ],
)
def test_what_the_network_would_accept(check, name, args, message):
    status, found = check(name, *args)
    assert status == 1 and message in found["patch"][1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("absent.Net",), "the network absent.Net is not installed here"),
        (("own_networks.MonaiLike", "--patch", "32"), "--patch takes 2 or 3 numbers, not 1"),
        (("own_networks.MonaiLike", "--patch", "0", "16", "16"), "--patch 0 16 16: sizes must be above 0"),
        (("own_networks.MonaiLike", "--batch", "0"), "--batch 0: sizes must be above 0"),
        (("own_networks.MonaiLike", "-c", "2d"), "-c names configurations of a dataset's plans"),
        (("own_networks.MonaiLike", "--option", "width"), "--option width has no value"),
    ],
)
def test_what_cannot_be_checked(args, message, capsys):
    assert main(["check-net", *args]) == 1
    said = capsys.readouterr()
    assert message in said.out + said.err


def test_values_are_those_of_a_gpu():
    """Products overflow as float16 does, sums of them do not; in-place activations keep their storage."""
    large = torch.full((1, 1, 4, 4), 300.0)
    with mixed_precision("cpu"), torch.no_grad():
        product = large.flatten(1) @ large.flatten(1).T  # 16 x 90000
        assert product.dtype == torch.float16 and product.isinf().all()
        half = nn.Conv2d(1, 1, 1)(large)
        assert half.dtype == torch.float16 and half.sum().dtype == torch.float32
        assert nn.functional.relu(half, inplace=True).data_ptr() == half.data_ptr()
        assert (half.sum() * 1e6).isfinite()
