"""A study that is killed again and again, by hand: pytest --long -m long tests/study"""

import random
import shutil
import time
from pathlib import Path

import pytest

from nnunet_livseg.study.folder_lock import holder

from .conftest import DATASET, TINY, Place, jobs_below, kill

STUDY = f"""
datasets = [901]
rows = ["dpcnet-unet", "dpcnet", "sfan"]
folds = [0, 1]
seeds = [0]
test = true
{TINY}"""
LAST = "Epoch 2"
PHASES = ("", "", *(name for name in ("last epoch", "validation", "prediction", "report") for _ in range(2)))
TABLES = (f"scores_{DATASET}.csv", f"scores_{DATASET}_test.csv")


def finished(place):
    """Results of finished trainings and predictions with their times of change."""
    results = place.folder / "nnUNet_results"
    found = [path for path in results.glob("*/*/fold_*/validation/summary.json") if path.read_bytes().endswith(b"\n}")]
    for record in results.glob("*/*/test_folds_*/livseg_prediction.json"):
        if '"finished": true' in record.read_text():
            found += [record, *record.parent.glob("*.nii.gz")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def phases(place):
    """What the study is doing now, as its folders and locks show."""
    models = place.folder / "nnUNet_results" / DATASET
    for fold in models.glob("*/fold_*"):
        if holder(fold) is None:
            continue
        if (fold / "checkpoint_final.pth").is_file():
            yield "validation"
        elif any(LAST in log.read_text() for log in fold.glob("training_log_*.txt")):
            yield "last epoch"
    predictions = [*models.glob("*/test_folds_*")]
    if any(holder(folder) for folder in predictions):
        yield "prediction"
    elif sum(folder / "livseg_prediction.json" in finished(place) for folder in predictions) == 3:
        yield "report"


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds jobs in /proc")
def test_kills_at_random_moments_lose_nothing_and_give_the_same_table(tmp_path):
    calm, wild = Place(tmp_path / "calm").phantoms(test_cases=2), Place(tmp_path / "wild")
    start = time.monotonic()
    calm.run("run", calm.study(STUDY))
    calm_s = time.monotonic() - start
    print(f"undisturbed: {calm_s:.0f} s", flush=True)
    shutil.copytree(calm.folder / "nnUNet_raw", wild.folder / "nnUNet_raw", dirs_exist_ok=True)
    file, chance, done = wild.study(STUDY), random.Random(), {}
    for number, phase in enumerate(PHASES):
        process = wild.start("run", file)
        while phase and phase not in phases(wild):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        time.sleep(chance.uniform(0, {"": calm_s / 5, "report": 1.5}.get(phase, 4)))
        assert process.poll() is None, f"the study had ended before it was killed: {phase}"
        victims = [[process.pid], jobs_below(wild), [process.pid, *jobs_below(wild)]][number % 3]
        for victim in victims:
            kill(victim)
        if process.pid not in victims:
            time.sleep(chance.uniform(0, 5))
            kill(process.pid)
        process.wait()
        now = finished(wild)
        assert {path: now.get(path) for path in done} == done, "a finished result was lost or done again"
        done = now
        print(f"kill {number + 1} in {phase or 'any phase'}: {len(done)} finished files", flush=True)
    wild.run("run", file)
    assert {path: finished(wild).get(path) for path in done} == done
    for table in TABLES:
        texts = [(place.folder / "study" / table).read_text() for place in (calm, wild)]
        assert texts[0] == texts[1] and texts[0].count("\n") > 3
    assert len(finished(wild)) == 6 + 3 * 3
