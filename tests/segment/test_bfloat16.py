"""``--engine torch-bfloat16``: the same network with the channels last in memory, rounded."""

from importlib.metadata import version

import pytest
import torch
from io_samples import as_image
from known_model import drawing, make_model

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference import engines
from nnunet_livseg.inference.devices import (
    keep_channels_last,
    multiplies_bfloat16,
    predict_in_bfloat16,
    put_channels_last,
)
from nnunet_livseg.reference_networks import build, stock_configuration

SIZE = (16, 32, 48)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_channels_last_changes_no_output(dim, batch):
    configuration = stock_configuration(dim, patch=SIZE[:dim], features=(4, 6, 8, 10))
    network = build(configuration, None, channels=1).eval()
    scan = torch.randn(batch, 1, *SIZE[:dim], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(scan)
        put_channels_last(network, bfloat16=False)
        keep_channels_last(network)
        found = network(scan)
    assert len(found) == len(expected) > 1  # deep supervision
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-4)


def test_a_network_without_convolutions():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 8), torch.nn.Unflatten(1, (1, 2, 2, 2)))
    scan = torch.ones(1, 1, 2, 2, 2)
    with torch.inference_mode():
        expected = network(scan)
        predict_in_bfloat16(network)
        torch.testing.assert_close(network(scan), expected, rtol=0.02, atol=0.02)


def test_the_result_names_the_engine(tmp_path):
    image, model = as_image(drawing()[0]), make_model(tmp_path)
    if not multiplies_bfloat16():
        with pytest.raises(UserError, match=r"torch .* does not compute in bfloat16 on this processor"):
            segment(image, model, engine="torch-bfloat16")
        return
    found = segment(image, model, engine="torch-bfloat16", device=torch.device("cpu"))
    assert found.provenance.settings["engine"] == f"torch {version('torch')}, bfloat16"
    assert found.provenance.device == "cpu"


def test_an_answer_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setitem(engines._IN_BFLOAT16, "torch-bfloat16", lambda: True)  # slow elsewhere, but right
    model = make_model(tmp_path, thresholds_hu=(torch.nan,))
    with pytest.raises(UserError, match=r"(?s)undefined values for this CT.*rounds too much: try --engine torch"):
        segment(as_image(drawing()[0]), model, engine="torch-bfloat16")


def test_a_gpu_has_no_use_for_it(tmp_path):
    with pytest.raises(UserError, match="computes on the CPU, not on cuda"):
        segment(as_image(drawing()[0]), make_model(tmp_path), engine="torch-bfloat16", device="cuda")
