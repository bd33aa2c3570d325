"""livseg list --cost: stored counts are those of the networks, and hours follow from them and from a measured speed."""

import json

import pytest

from nnunet_livseg.cli import main
from nnunet_livseg.diagnostics import training_cost
from nnunet_livseg.diagnostics.benchmark import BenchmarkResult, BenchmarkSetup, NetworkCost
from nnunet_livseg.diagnostics.benchmark_table import to_markdown
from nnunet_livseg.diagnostics.training_cost import MachineSpeed, count_training, hours_by_step, stored_counts
from nnunet_livseg.variants import VARIANTS, find_variant


def test_every_row_has_a_stored_count():
    assert list(stored_counts()) == ["nnU-Net", *(row.name for row in VARIANTS)]


@pytest.mark.parametrize("name", ["nnU-Net", "sfan", "mfcnet"])
def test_a_stored_count_is_that_of_the_network(name):
    """MFCNet's attention never makes its whole map: counted on meta alone, its memory would be 5 times as large."""
    found = count_training(None if name == "nnU-Net" else find_variant(name))
    stored = stored_counts()[name]
    assert found.dim == stored.dim
    assert found.step_gflop == pytest.approx(
        stored.step_gflop, rel=0.01
    )  # versions of torch differ in small operations
    assert found.memory_mib == pytest.approx(stored.memory_mib, rel=0.05)


def test_the_memory_is_what_was_saved_on_a_cpu():
    """3.33 GiB for one patch (docs/evidence/performance.md), and three times the parameters."""
    assert stored_counts()["nnU-Net"].memory_mib == pytest.approx(2 * 3.33 * 1024 + 31.2e6 * 12 / 2**20, rel=0.01)


def test_hours_follow_from_speed_and_operations(capsys, monkeypatch):
    speed = MachineSpeed(1000.0, "a processor", 4, (32, 32, 32), "2")
    monkeypatch.setattr(training_cost, "measure_speed", lambda: speed)
    assert main(["list", "--cost", "--paper", "sfan", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[0]
    steps = 250 + 50 / 3
    assert entry["name"] == "sfan" and entry["cost"]["epoch_s"] == pytest.approx(
        entry["cost"]["step_gflop"] * steps / 1000
    )
    assert entry["cost"]["hours"] == pytest.approx(entry["cost"]["epoch_s"] / 3.6)
    assert main(["list", "--cost"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{row.name} " in said for row in VARIANTS)
    assert "measured: a processor, 4 threads, torch 2: 1,000 GFLOP/s in steps of nnU-Net's network at 32x32x32" in said


def test_hours_of_a_measured_step():
    """A network that is twice as fast as another for its operations is done in half of the time."""
    figures = NetworkCost("sfan", 1, flops=10e9, step_s=1.0)  # 30 GFLOP a step
    count = stored_counts()["sfan"]
    assert hours_by_step(figures, 3) == pytest.approx(count.step_gflop / 30 * (250 + 50 / 3) * 1000 / 3600)
    setting = BenchmarkSetup((32, 32, 32), 2, "cpu", "a processor", 1, 1, compiled=False, torch="2")
    stock, twice = NetworkCost("nnU-Net", 1, 10e9, 1.0, 2.0, 1.0), NetworkCost("sfan", 1, 10e9, 1.0, 0.5, 1.0)
    said = to_markdown(BenchmarkResult(setting, [(stock, twice)]))
    assert (
        f"| {hours_by_step(figures, 3) / 2:,.0f} h |" in said
        and "1000 epochs: nnU-Net's training at 128x128x128" in said
    )
    assert hours_by_step(figures, 2) is None


def test_the_speed_is_measured():
    speed = training_cost.measure_speed("cpu", repeats=1)
    assert speed.patch == (32, 32, 32) and speed.threads >= 1
    assert 0.1 < speed.gflop_per_s < 1e6
