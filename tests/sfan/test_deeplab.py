"""DeepLabv3 is torchvision's, weight for weight, at the output stride that SFAN's paper names."""

import pytest
import torch
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.deeplabv3 import DeepLabV3 as TorchvisionDeepLab

from nnunet_livseg.networks.atrous import DeepLabV3
from nnunet_livseg.reference_networks import stock_configuration

ASPP = {f"branches.{i}.{j}": f"convs.{i}.{j}" for i in range(4) for j in range(2)}
ASPP |= {"pooled.0": "convs.4.1", "pooled.1": "convs.4.2", "project.0.0": "project.0", "project.0.1": "project.1"}
HEAD = {f"aspp.{ours}": f"0.{theirs}" for ours, theirs in ASPP.items()}
HEAD |= {"refine.0": "1", "refine.1": "2", "seg_layers.0": "4"}


def build(dim=2, channels=3, classes=21, stages=6, **options):
    kwargs = stock_configuration(dim, features=(32,) * stages)["architecture"]["arch_kwargs"]
    kwargs |= {"conv_op": {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dim]}
    kwargs |= {"norm_op": None, "nonlin": torch.nn.ReLU}
    return DeepLabV3(channels, classes, **kwargs, **options)


def test_it_has_the_count_of_torchvision():
    """torchvision's documentation: 60,996,202 with its auxiliary head of 2,365,205, three channels, 21 classes."""
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == 60_996_202 - 2_365_205


@pytest.mark.parametrize("size", [(64, 96), (48, 80)])
def test_it_is_torchvisions_network(size):
    torch.manual_seed(0)
    ours = build(layers=[1, 1, 2, 2]).eval()
    backbone = ResNet(Bottleneck, [1, 1, 2, 2], replace_stride_with_dilation=[False, False, True])
    backbone = IntermediateLayerGetter(backbone, {"layer4": "out"})
    theirs = TorchvisionDeepLab(backbone, DeepLabHead(2048, 21, (6, 12, 18))).eval()
    backbone.load_state_dict(ours.encoder.state_dict())
    state = ours.decoder.state_dict()
    named = {theirs: ours for ours, theirs in HEAD.items()}
    theirs.classifier.load_state_dict(
        {
            name: state[f"{named[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}"]
            for name in theirs.classifier.state_dict()
        }
    )
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        features = ours.encoder(x)[-1]
        assert features.shape == (1, 2048, size[0] // 16, size[1] // 16)
        torch.testing.assert_close(features, backbone(x)["out"])
        torch.testing.assert_close(ours(x), theirs(x)["out"])


def test_dilation_takes_the_place_of_a_stride_along_the_axes_that_had_one():
    """Thick slices: along the axis that the plans do not pool at that depth, nothing is dilated."""
    kwargs = stock_configuration(3, features=(4,) * 6)["architecture"]["arch_kwargs"]
    kwargs |= {"conv_op": torch.nn.Conv3d, "norm_op": None, "nonlin": torch.nn.ReLU}
    kwargs["strides"][5] = [1, 2, 2]
    with torch.device("meta"):
        encoder = DeepLabV3(1, 2, layers=[1, 1, 1, 2], **kwargs).encoder
    blocks = encoder.layer4
    assert [block.conv2.dilation for block in blocks] == [(1, 1, 1), (1, 2, 2)]
    assert [block.conv2.padding for block in blocks] == [(1, 1, 1), (1, 2, 2)]
    assert encoder.strides[-1] == (1, 1, 1)
