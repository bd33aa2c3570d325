"""The matrix's own machinery: what counts as passed, refused or failed, what is run again, and what the page says."""

from dataclasses import replace
from itertools import pairwise

import pytest

from nnunet_livseg.variants import VARIANTS, find_variant

from .dataset import prepared
from .journey import travel
from .nnunet import Workplace
from .support import FAILED, PAGE, PASSED, REFUSED, Cell, Outcome, Store, cells, page

CELL = Cell(VARIANTS[0], "2d", "labels")


def outcome(kind, message="", cell=CELL):
    return Outcome(kind, cell.digest, 1.0, message)


def test_the_page_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == page(Store().outcomes()), "stale: python tests/matrix/support.py"


def test_every_row_meets_every_configuration_and_kind_of_labels():
    names = [str(cell) for cell in cells()]
    assert len(names) == len(set(names)) == len(VARIANTS) * 4 * 3


def test_a_cascade_follows_its_first_stage():
    for before, cell in pairwise(cells()):
        if cell.configuration == "3d_cascade_fullres":
            assert before == replace(cell, configuration="3d_lowres")


@pytest.mark.parametrize(("kind", "kept"), [(PASSED, True), (REFUSED, True), (FAILED, False)])
def test_failed_cells_run_again(kind, kept, tmp_path):
    store = Store(tmp_path / "support.json")
    store.record(CELL, outcome(kind))
    assert (store.settled(CELL) is not None) == kept
    assert store.settled(Cell(VARIANTS[0], "2d", "regions")) is None


def test_a_row_that_trains_otherwise_runs_again_and_a_remark_changes_nothing(tmp_path):
    store = Store(tmp_path / "support.json")
    other = replace(CELL, row=replace(CELL.row, options={"semcor": False}))
    store.record(CELL, replace(outcome(PASSED), digest=other.digest))
    assert store.settled(CELL) is None
    assert replace(CELL, row=replace(CELL.row, note="a remark")).digest == CELL.digest


def test_a_second_outcome_replaces_the_first_and_keeps_the_others(tmp_path):
    store, neighbor = Store(tmp_path / "support.json"), Cell(VARIANTS[1], "2d", "labels")
    store.record(neighbor, outcome(PASSED, cell=neighbor))
    store.record(CELL, outcome(FAILED, "broken"))
    store.record(CELL, outcome(PASSED))
    assert [o.outcome for o in store.outcomes().values()] == [PASSED, PASSED]
    assert list(store.outcomes()) == [str(CELL), str(neighbor)]  # in the matrix's order


def test_the_page_gives_the_reason_of_a_refusal_once():
    refused = {
        str(Cell(VARIANTS[0], "2d", labels)): outcome(REFUSED, "no such labels") for labels in ("labels", "ignore")
    }
    text = page(refused | {str(Cell(VARIANTS[1], "2d", "labels")): outcome(PASSED)})
    assert f"| `{VARIANTS[0].trainer}` | no (1) |  | no (1) |" in text
    assert f"| `{VARIANTS[1].trainer}` | yes |  |" in text
    assert text.count("no such labels") == 1
    assert f"1 passed, 2 refused, 0 failed, {len(VARIANTS) * 12 - 3} not run" in text


@pytest.mark.slow
def test_passed_refused_and_failed_are_told_apart(place, tmp_path):
    dataset = prepared(place, labels="labels", phases=1)
    passed = travel(CELL, dataset, tmp_path / "passed")
    assert (passed.outcome, passed.message) == (PASSED, "")
    two_phases = travel(Cell(find_variant("sam-urim"), "2d", "labels"), dataset, tmp_path / "refused")
    assert two_phases.outcome == REFUSED and "needs at least 2 contrast phases" in two_phases.message
    unknown = Cell(replace(VARIANTS[0], trainer="UnknownTrainer"), "2d", "labels")
    failed = travel(unknown, dataset, tmp_path / "failed")
    assert failed.outcome == FAILED and "UnknownTrainer" in failed.message


class Forgetful(Workplace):
    """Runs commands without ``--c``."""

    def run(self, command, *arguments, **environment):
        super().run(command, *(word for word in arguments if word != "--c"), **environment)


@pytest.mark.slow
def test_a_training_that_starts_again_instead_of_continuing_fails(place, tmp_path):
    dataset = replace(prepared(place, labels="labels", phases=1), place=Forgetful(place.folder))
    outcome = travel(CELL, dataset, tmp_path)
    assert outcome.outcome == FAILED and "not continued" in outcome.message
