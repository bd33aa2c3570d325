"""Initial weights: what fits is loaded, the first convolution is adapted, the rest is named."""

import pytest
import torch
from safetensors.torch import save_file

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.training.transfer import load_matching
from nnunet_livseg.variants import find_variant

CONFIGURATION = stock_configuration(2, patch=(32, 32), features=(4, 6, 8, 8))


@pytest.fixture
def checkpoint(tmp_path):
    """A stock checkpoint of one channel, as nnU-Net saves it."""
    network = build(CONFIGURATION)
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": network.state_dict()}, path)
    return path, network


def test_a_stock_training_fills_the_whole_unet(checkpoint):
    path, stock = checkpoint
    network = build(CONFIGURATION, find_variant("dpcnet"))
    report = load_matching(network, path)
    assert set(report.loaded) == set(dict(stock.named_parameters()))
    assert {name.split(".")[0] for name in report.new} == {"spacor", "semcor"}
    torch.testing.assert_close(network.encoder.state_dict(), stock.encoder.state_dict())
    assert f"{len(report.loaded)} of {len(dict(network.named_parameters()))} tensors loaded" in report.summary()
    assert "new: spacor.modules_per_level.0.g.weight" in report.summary()


def test_safetensors_are_as_good_as_a_checkpoint(checkpoint, tmp_path):
    halves = {name: tensor.half().contiguous() for name, tensor in checkpoint[1].state_dict().items()}
    save_file(halves, tmp_path / "half.safetensors")
    network = build(CONFIGURATION)
    assert not load_matching(network, tmp_path / "half.safetensors").new
    expected = {name: tensor.float() for name, tensor in halves.items()}
    torch.testing.assert_close(network.state_dict(), expected, rtol=0, atol=0)


def test_a_file_that_names_each_tensor_once_fills_the_network_as_well(checkpoint, tmp_path):
    """As the starter model's, and those of livseg export."""
    tensors = {name: tensor.detach() for name, tensor in checkpoint[1].named_parameters()}
    assert len(tensors) < len(checkpoint[1].state_dict())
    save_file(tensors, tmp_path / "once.safetensors")
    network = build(CONFIGURATION)
    report = load_matching(network, tmp_path / "once.safetensors")
    assert not report.new and len(report.loaded) == len(tensors)
    torch.testing.assert_close(network.state_dict(), checkpoint[1].state_dict(), rtol=0, atol=0)


def test_equal_channels_give_the_old_response(checkpoint):
    path, stock = checkpoint
    network = build(CONFIGURATION, find_variant("dpcnet-pfe"), channels=3)
    report = load_matching(network, path)
    assert [name for name in report.adapted if name.endswith("convs.0.conv.weight")]
    assert not report.new
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x.expand(1, 3, 32, 32))[0], stock(x)[0], rtol=1e-4, atol=1e-5)


def test_another_number_of_classes_leaves_the_heads_new(checkpoint):
    path, _ = checkpoint
    report = load_matching(build(CONFIGURATION, find_variant("dpcnet-pfe"), classes=2), path)
    assert report.new and all("seg_layers" in name for name in report.new)


@pytest.mark.parametrize("from_dim", [2, 3])
def test_norms_and_biases_alone_are_no_transfer(tmp_path, from_dim):
    """They fit a network of another dimension, or of other kernels, by name and shape."""
    dims = {2: CONFIGURATION, 3: stock_configuration(3, patch=(32, 32, 32), features=(4, 6, 8, 8))}
    path = tmp_path / "other.pth"
    torch.save({"network_weights": build(dims[from_dim]).state_dict()}, path)
    network = build(dims[5 - from_dim], find_variant("dpcnet"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reason = f"its convolutions are {from_dim}D, and the network's are {5 - from_dim}D"
    with pytest.raises(UserError, match=reason):
        load_matching(network, path)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    kernels = build(dims[from_dim]).state_dict()
    torch.save({"network_weights": {n: t for n, t in kernels.items() if t.ndim == 1}}, path)
    with pytest.raises(UserError, match=r"only \d+ norms and biases have the same name and shape"):
        load_matching(build(dims[from_dim]), path)


def test_what_is_no_checkpoint(tmp_path):
    network = build(CONFIGURATION)
    with pytest.raises(UserError, match=r"there is no checkpoint .*gone.pth"):
        load_matching(network, tmp_path / "gone.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"text.pth is not a checkpoint of nnU-Net"):
        load_matching(network, tmp_path / "text.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"cut.safetensors is not a checkpoint of nnU-Net"):
        load_matching(network, tmp_path / "cut.safetensors")
    torch.save({"network_weights": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"nothing in .*other.pth fits this network"):
        load_matching(network, tmp_path / "other.pth")
