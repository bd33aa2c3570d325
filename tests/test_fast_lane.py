"""benchmarks/fast_lane.py: every way runs once, and its table follows from the JSON file."""

import json
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunet_livseg.data.phantom.phantom_dataset import write_dataset

from .matrix.nnunet import forked_run
from .test_results import script

PROJECT = Path(__file__).resolve().parents[1]
SMALL = {"spacing_mm": (8.0, 8.0, 4.0), "patch": (32, 32, 32), "quarter": (4, 8, 8), "full": (8, 16, 16), "patches": 2}


@pytest.fixture(scope="module")
def lane():
    sys.path.insert(0, str(PROJECT / "benchmarks"))
    return script(PROJECT / "benchmarks" / "fast_lane.py")


@pytest.mark.slow
def test_the_whole_run_on_a_phantom(lane, tmp_path, monkeypatch):
    """Every way is measured once, a second call measures nothing, and the table has them all."""
    calls = []

    def forked(command, *words):
        calls.append(command)
        program = str(Path(sys.executable).with_name(command))
        start = time.perf_counter()
        with (tmp_path / "log").open("w") as log:
            ended = forked_run([program, *map(str, words)], cwd=tmp_path, env={}, stdout=log, stderr=log)
        assert not ended.returncode, (tmp_path / "log").read_text()[-2000:]
        return 2**30, time.perf_counter() - start

    monkeypatch.setattr(lane, "measured", forked)
    monkeypatch.setattr(lane, "is_usable", lambda engine: engine == "torch")
    monkeypatch.setattr(lane, "OF_STARTER", {way: lane.OF_STARTER[way] for way in ("standard", "fast")})
    raw = write_dataset(
        tmp_path / "Dataset901_Phantom", cases=1, test_cases=0, progress=False, size=(48, 64, 80), spacing_mm=(4, 4, 4)
    )
    ct, reference = (next((raw / folder).iterdir()) for folder in ("imagesTr", "labelsTr"))
    bench = lane.Bench(slices=(40, 60), in_plane=64, **SMALL)
    record = lane.Record(tmp_path / "lane.json")
    lane.measure(tmp_path / "work", ct, record, bench, reference=reference)
    rows = json.loads((tmp_path / "lane.json").read_text())["rows"]
    ways = [way for way in lane.WAYS if "--engine" not in way]
    assert [key for key in rows if key.startswith("quarter")] == [
        f"quarter | {count} | {way}" for way in ways for count in bench.slices if count == 40 or way == "fast"
    ]
    answer = sitk.ReadImage(str(tmp_path / "work" / "out" / "ours" / "segmentation.nii.gz"))
    assert not sitk.GetArrayViewFromImage(answer).any()  # background: no time goes into measuring noise
    passes = rows["passes | 40"]
    assert passes["standard"] == 8 * passes["standard --disable_tta"] == 32  # 24 x 32 x 80 voxels: 4 patches
    assert passes["standard --disable_tta -step_size 0.75"] == 3
    assert passes["fast"] <= passes["standard --disable_tta --crop"] <= passes["standard --disable_tta"]
    assert rows["starter | standard"]["equal"] == 1 and rows["starter | standard"]["liver"] > 0.5
    assert len(rows["full | torch"]["all"]) == bench.patches
    table = script(PROJECT / "docs" / "generate.py").fast_lane(tmp_path / "lane.json")
    assert all(table.count(f"| `{way}` |") >= 2 for way in ways)
    assert "Projected: the network's time alone" in table and f"| {rows['starter | fast']['equal']:.3%}"[:-1] in table
    done = len(calls)
    lane.measure(tmp_path / "work", ct, lane.Record(tmp_path / "lane.json"), bench, reference=reference)
    assert len(calls) == done == len(ways) + 1 + len(lane.OF_STARTER)


def test_a_long_ct_repeats_the_end_slices(lane, tmp_path):
    import numpy as np

    image = sitk.GetImageFromArray(np.arange(6 * 4 * 4, dtype=np.int16).reshape(6, 4, 4))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    paths = {count: tmp_path / f"x{count}" / "ct_0000.nii.gz" for count in (3, 10, 20)}
    lane.make_cts(tmp_path / "ct.nii.gz", paths, 4)
    made = {count: sitk.ReadImage(str(path)) for count, path in paths.items()}
    assert [one.GetDepth() for one in made.values()] == [3, 10, 20]
    first = sitk.GetArrayFromImage(made[10])[:, 0, 0]
    assert np.array_equal(first, 16 * np.array([0, 0, 0, 1, 2, 3, 4, 5, 5, 5]))
    extents_mm = [one.GetSpacing()[2] * (one.GetDepth() - 1) for one in made.values()]
    assert extents_mm == pytest.approx([5, 9, 9])
