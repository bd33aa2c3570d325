"""A study that is killed again and again, by hand: pytest --long -m long tests/study"""

import random
import shutil
import time
from pathlib import Path

import pytest

from .conftest import DATASET, TINY, Place, jobs_below, kill

STUDY = f'datasets = [901]\nrows = ["dpcnet-unet", "dpcnet", "sfan"]\nfolds = [0, 1]\nseeds = [0]{TINY}'
KILLS = 10


def finished(place):
    """Results of finished trainings with their times of change."""
    found = (place.folder / "nnUNet_results").glob("*/*/fold_*/validation/summary.json")
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found if path.read_bytes().endswith(b"\n}")}


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds jobs in /proc")
def test_kills_at_random_moments_lose_nothing_and_give_the_same_table(tmp_path):
    calm, wild = Place(tmp_path / "calm").phantoms(), Place(tmp_path / "wild")
    start = time.monotonic()
    calm.run("run", calm.study(STUDY))
    calm_s = time.monotonic() - start
    print(f"undisturbed: {calm_s:.0f} s", flush=True)
    shutil.copytree(calm.folder / "nnUNet_raw", wild.folder / "nnUNet_raw", dirs_exist_ok=True)
    file, chance, done = wild.study(STUDY), random.Random(), {}
    for number in range(KILLS):
        process = wild.start("run", file)
        time.sleep(chance.uniform(1, calm_s / 5))
        victims = [[process.pid], jobs_below(wild), [process.pid, *jobs_below(wild)]][number % 3]
        for victim in victims:
            kill(victim)
        if process.pid not in victims:
            time.sleep(chance.uniform(1, 10))
            kill(process.pid)
        process.wait()
        now = finished(wild)
        assert {path: now.get(path) for path in done} == done, "a finished result was lost or done again"
        done = now
        print(f"kill {number + 1}: {len(done)} of 6 trainings finished", flush=True)
    wild.run("run", file)
    assert {path: finished(wild).get(path) for path in done} == done
    tables = [(place.folder / "study" / f"scores_{DATASET}.csv").read_text() for place in (calm, wild)]
    assert tables[0] == tables[1]
    assert len(finished(wild)) == 6
