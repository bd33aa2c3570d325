"""nnU-Net's folders for the matrix."""

import pytest

from .nnunet import Workplace


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Where all cells train; a dataset is prepared when the first cell asks for it."""
    place = Workplace(tmp_path_factory.mktemp("matrix"))
    for folder in (place.raw, place.preprocessed, place.results):
        folder.mkdir()
    return place
