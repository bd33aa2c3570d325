"""livseg plan --network: any class that takes (B, C, *S) and returns logits."""

from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.losses import LOSSES, MultiOutputLoss
from nnunet_livseg.planning.own_network import with_outputs
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import OWN

HERE = "own_networks"  # beside this file


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def planned(name, dim=3, *, channels=2, classes=3, patch=None, **arguments):
    configuration = stock_configuration(dim, patch=patch or (16,) * dim, features=(4, 6))
    architecture = configuration["architecture"]
    own = {"network": name if "." in name else f"{HERE}.{name}", "arguments": arguments}
    own["patch_size"] = configuration["patch_size"]
    configuration["architecture"] = architecture | {
        "network_class_name": OWN.network,
        "arch_kwargs": architecture["arch_kwargs"] | own,
    }
    found = with_outputs({"configurations": {"one": configuration}}, channels=channels, classes=classes)
    return found["configurations"]["one"]


@pytest.mark.parametrize(
    ("name", "dim", "strides", "arguments"),
    [
        ("MonaiLike", 3, [(1, 1, 1), (2, 2, 2)], {"width": 6}),
        ("MonaiLike", 2, [(1, 1), (2, 2)], {}),
        ("MonaiLike", 2, [(1, 1)], {"deep_supervision": False}),
        ("SmpLike", 2, [(1, 1)], {"depth": 2}),
        ("Sized", 3, [(1, 1, 1)], {}),
        ("Stacked", 3, [(1, 1, 1), (1, 1, 1)], {}),
        ("Named", 3, [(1, 1, 1)], {}),
        ("CannotRunWithoutValues", 3, [(1, 1, 1), (2, 2, 2)], {}),
    ],
)
def test_a_network_is_built_trained_and_predicts(name, dim, strides, arguments):
    configuration = planned(name, dim, **arguments)
    network = build(configuration, channels=2, classes=3)
    outputs = network.training_outputs()
    assert [output.stride for output in outputs] == strides
    assert sum(output.weight for output in outputs) == pytest.approx(1)
    x = torch.randn(2, 2, *(16,) * dim)
    trained = network.train()(x)
    targets = [torch.ones(2, 1, *(16 // s for s in stride)) for stride in strides]  # one per output, as nnU-Net's are
    loss = MultiOutputLoss(LOSSES["dice_ce"](LabelManager(LIVER_AND_TUMOR, None), False, False), outputs)
    loss(trained, targets).backward()
    assert [tuple(t.shape) for t in trained] == [(2, 3, *(16 // s for s in stride)) for stride in strides]
    validated = network.eval()(x)  # as nnU-Net's validation in training asks for it
    assert [v.shape for v in validated] == [t.shape for t in trained]
    network.decoder.deep_supervision = False
    assert network.eval()(x).shape == (2, 3, *(16,) * dim)
    if "width" in arguments:
        assert network.network.fine.out_channels == arguments["width"]


@pytest.mark.parametrize(
    ("name", "dim", "arguments", "message"),
    [
        ("MonaiLike", 3, {"widht": 6}, "no argument 'widht'. Did you mean width?"),
        ("SmpLike", 2, {}, "needs the argument depth, whose value .*\n.*--option depth=VALUE"),
        ("SmpLike", 2, {"depth": "deep"}, r"failed: TypeError: .*\n.*--option NAME=VALUE"),
        ("SmpLike", 3, {"depth": 1}, r"cannot take a batch of 2 patches of 16 x 16 x 16 voxels with 2 channel\(s\)"),
        ("Halved", 3, {}, "first output has shape 2 x 3 x 8 x 8 x 8, .* needs 2 x 3 x 16 x 16 x 16"),
        ("Text", 3, {}, "returns a str, but nnU-Net needs logits"),
        ("MonaiLike", 3, {"out_channels": 7}, "an output of shape 2 x 7 x 16 x 16 x 16"),
        ("Absent", 3, {}, "the network own_networks.Absent is not installed here"),
        ("MonaiLik", 3, {}, "is not installed here .*Did you mean MonaiLike?"),
        ("absent.Net", 3, {}, "the network absent.Net is not installed here .*\n.*PYTHONPATH"),
        ("own_networks.torch", 3, {}, "is a module, not a network class"),
    ],
)
def test_what_cannot_be_used_is_refused(name, dim, arguments, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        planned(name, dim, **arguments)


def test_the_trainer_alone_has_no_network():
    with pytest.raises(UserError, match=r"these plans do not name a network.*\n.*livseg plan -d DATASET --network"):
        build(stock_configuration(3, patch=(16,) * 3, features=(4, 6)), OWN)
