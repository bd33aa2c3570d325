"""benchmarks/scaling.py: as many lesions as asked for are measured and written, and the picture shows every row."""

from pathlib import Path

import pytest

from .report.virtual_patient import scan, segmented
from .test_results import script

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scaling():
    return script(BENCHMARKS / "scaling.py")


def test_lesions_are_drawn_into_the_liver_measured_and_written(scaling, tmp_path):
    found = segmented(*scan())
    stages = list(scaling.with_lesions(found, [0, 3, 40], tmp_path / "drawn"))
    assert [list(each) for each in stages] == 3 * [["measure", "write", "report"]]
    table = (tmp_path / "drawn" / "lesions.csv").read_text()
    assert len(table.splitlines()) == 1 + 40
    with pytest.raises(ValueError, match="has room for"):
        list(scaling.with_lesions(found, [100_000], tmp_path))


def test_the_picture_has_a_bar_for_every_row(scaling, tmp_path, monkeypatch):
    rows = {"slices | 50": {"stages": {"read": 1.0, "network": 5.0}}, "slices | 600": {"stages": {"read": 2.0}}}
    rows |= {"lesions | 10": {"stages": {"measure": 0.5}}}
    drawn = []
    monkeypatch.setattr(scaling.plt.Axes, "bar", lambda ax, *words, **more: drawn.append((words, more)))
    monkeypatch.setattr(scaling.plt.Axes, "legend", lambda *words, **more: None)
    scaling.draw(rows, tmp_path / "scaling.png")
    assert [(words[0], list(words[1]), list(more["bottom"]), more["label"]) for words, more in drawn] == [
        (["50", "600"], [1.0, 2.0], [0.0, 0.0], "read"),
        (["50", "600"], [5.0, 0.0], [1.0, 2.0], "network"),
        (["10"], [0.5], [0.0], "measure"),
    ]
    assert (tmp_path / "scaling.png").stat().st_size > 1000
