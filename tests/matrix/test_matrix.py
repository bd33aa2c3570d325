"""Every row of the table in every configuration with every kind of labels: pytest --long -m long tests/matrix

Finished cells are kept in docs/reference/support.json and not run again; a run that is stopped goes on where it was.
"""

import shutil

import pytest

from nnunet_livseg.core.files import write_text

from .dataset import CASCADE, prepared
from .journey import travel
from .support import FAILED, PAGE, Store, cells, page


@pytest.fixture(scope="module")
def store():
    """The outcomes so far; the page is made from them at the end."""
    store = Store()
    yield store
    write_text(PAGE, page(store.outcomes()))


@pytest.mark.long
@pytest.mark.parametrize("cell", list(cells()), ids=lambda cell: str(cell).replace(" ", "-"))
def test_cell(cell, place, store, tmp_path):
    if known := store.settled(cell):
        pytest.skip(f"{known.outcome} on {known.date}")
    if cell.row.extra:  # its absence would be recorded as a refusal of the cell
        pytest.importorskip(cell.row.extra)
    place.log.unlink(missing_ok=True)
    dataset = prepared(place, labels=cell.labels, phases=2 if cell.row.phases else 1)
    outcome = travel(cell, dataset, tmp_path)
    store.record(cell, outcome)
    if cell.configuration != CASCADE[0]:  # the cascade is next and goes on from the first stage
        shutil.rmtree(place.results)
        place.results.mkdir()
    shutil.rmtree(tmp_path)
    assert outcome.outcome != FAILED, f"{outcome.message}\n{place.log.read_text()[-6000:]}"
