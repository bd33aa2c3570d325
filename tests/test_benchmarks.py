"""The scripts behind docs/evidence/performance.md run and say what they claim."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


def said_by(script, *arguments):
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_training_peak_holds_more_than_what_is_kept():
    said = said_by("training_peak.py", "-m", "sfan-unet", "--patch", 64, 64, "--batch", 4)
    rows = re.findall(r"\| (\S+) \| .*? \| ([\d.]+) GiB.*? \| ([\d.]+) GiB", said)
    assert [name for name, _, _ in rows] == ["nnU-Net", "sfan-unet"]
    assert all(float(kept) < float(peak) for _, kept, peak in rows)


def test_operations_add_up_to_the_ratio_of_the_times():
    said = said_by("operations.py", "-m", "mpunet", "--patch", 64, 64, "--repeats", 1)
    assert len(re.findall(r"^\| (?!op|-)", said, re.MULTILINE)) > 4
    for what in ("step", "predict"):
        table = said[said.index(f"mpunet, {what}") :].split("\n\n")[1]
        columns = [[float(x) for x in row] for row in re.findall(r"\| ([\d.]+) \| ([\d.]+) \|", table)]
        stock, ours = (sum(column) for column in zip(*columns, strict=True))
        ratio = float(re.search(rf"mpunet, {what}: .* ratio ([\d.]+)", said).group(1))
        assert (stock, ours) == pytest.approx((1, ratio), abs=0.05 * max(1, ratio))


def test_attention_stands_between_closed_and_open_before_training():
    said = said_by("attention_at_start.py", "-m", "dpcnet", "--seeds", 2)
    rows = re.findall(r"\| dpcnet \| (\w+) \| \d \| ([\d. ]+) \|", said)
    assert {key for key, _ in rows} == {"spacor_attention", "semcor_attention"}
    assert all(0 < float(mean) < 1 for _, means in rows for mean in means.split())
    assert len({means for _, means in rows}) == len(rows)
