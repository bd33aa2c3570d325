"""The ResNet encoder against torchvision, and weights of local files."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.resnet import ResNetEncoder

TWINS = {
    "resnet34": {},
    "resnet50": {"block": "bottleneck"},
    "resnext50_32x4d": {"block": "bottleneck", "groups": 32, "width_per_group": 4},
}
SMALL = {"layers": (1, 1), "width": 8}


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _maps_of_torchvision(model, x):
    maps = [model.relu(model.bn1(model.conv1(x)))]
    x = model.maxpool(maps[0])
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        maps.append(x)
    return maps


@pytest.fixture
def weights(tmp_path):
    """A file as torchvision writes it, of a small 2D encoder for three channels."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(3, conv_op=nn.Conv2d, **SMALL)
    for name, tensor in encoder.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.uniform_(0.1, 1)
    path = tmp_path / "small.pth"
    torch.save({**encoder.state_dict(), "fc.weight": torch.ones(5, 16), "fc.bias": torch.ones(5)}, path)
    return path


@pytest.mark.parametrize("name", TWINS)
def test_maps_are_those_of_torchvision(name, tmp_path):
    torch.manual_seed(0)
    twin = getattr(torchvision.models, name)().eval()
    torch.save(twin.state_dict(), tmp_path / "twin.pth")
    encoder = ResNetEncoder(3, conv_op=nn.Conv2d, **TWINS[name]).eval()
    assert "tensors loaded." in encoder.load_weights(tmp_path / "twin.pth")
    assert _count(encoder) == _count(twin) - _count(twin.fc)
    x = torch.randn(2, 3, 46, 71)
    with torch.no_grad():
        for ours, theirs in zip(encoder(x), _maps_of_torchvision(twin, x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert encoder.channels == [y.shape[1] for y in _maps_of_torchvision(twin, x)]


def test_parameters_of_resnet34_and_resnext50():
    encoder = ResNetEncoder(3, conv_op=nn.Conv2d)
    assert _count(encoder.conv1) + _count(encoder.bn1) == 9_536
    layers = [_count(getattr(encoder, f"layer{i}")) for i in range(1, 5)]
    assert layers == [221_952, 1_116_416, 6_822_400, 13_114_368]
    assert _count(ResNetEncoder(3, conv_op=nn.Conv2d, **TWINS["resnext50_32x4d"])) == 22_979_904


def test_follows_anisotropic_strides_and_kernels():
    strides = [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 1, 2)]
    kernels = [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]
    encoder = ResNetEncoder(
        2, conv_op=nn.Conv3d, layers=(1, 1, 1), width=8, strides=strides, kernel_sizes=kernels
    ).eval()
    maps = encoder(torch.randn(1, 2, 5, 33, 40))  # odd sizes are rounded up
    assert [tuple(y.shape[2:]) for y in maps] == [(5, 17, 20), (5, 9, 10), (3, 5, 5), (2, 5, 3)]
    assert encoder.strides == strides
    assert encoder.conv1.kernel_size == (1, 7, 7)
    assert encoder.layer1[0].conv1.kernel_size == (1, 3, 3)
    assert encoder.layer2[0].conv1.kernel_size == (3, 3, 3)


def test_no_pooling_where_its_strides_are_one():
    encoder = ResNetEncoder(1, conv_op=nn.Conv2d, strides=[(2, 2), (1, 1), (2, 2)], **SMALL)
    stem, first, second = encoder(torch.randn(2, 1, 16, 24))
    assert stem.shape[2:] == first.shape[2:] == (8, 12)
    assert second.shape[2:] == (4, 6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_equal_channels_keep_their_response(weights, channels):
    rgb, other = (ResNetEncoder(c, conv_op=nn.Conv2d, **SMALL).eval() for c in (3, channels))
    rgb.load_weights(weights)
    assert f"3 input channels adapted to {channels}" in other.load_weights(weights)
    x = torch.randn(2, 1, 20, 33)
    torch.testing.assert_close(
        other(x.expand(-1, channels, -1, -1))[-1], rgb(x.expand(-1, 3, -1, -1))[-1], rtol=1e-4, atol=1e-4
    )


def test_inflated_kernels_keep_the_response_of_equal_slices(weights):
    flat = ResNetEncoder(3, conv_op=nn.Conv2d, **SMALL).eval()
    deep = ResNetEncoder(3, conv_op=nn.Conv3d, strides=[(1, 2, 2)] * 3, **SMALL).eval()
    flat.load_weights(weights)
    assert "inflated to 3D" in deep.load_weights(weights)
    x = torch.randn(2, 3, 20, 33)
    slices = x[:, :, None].expand(-1, -1, 17, -1, -1)  # the middle slice is 8 away from the padding; 3 + 2 + 2 reach it
    for map2d, map3d in zip(flat(x), deep(slices), strict=True):
        torch.testing.assert_close(map3d[:, :, 8], map2d, rtol=1e-4, atol=1e-4)


def test_reads_safetensors_and_wrapped_state_dicts(weights, tmp_path):
    state = torch.load(weights)
    save_file(state, tmp_path / "small.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "wrapped.pth")
    for name in ("small.safetensors", "wrapped.pth"):
        encoder = ResNetEncoder(3, conv_op=nn.Conv2d, **SMALL)
        encoder.load_weights(tmp_path / name)
        torch.testing.assert_close(encoder.layer2[0].conv2.weight, state["layer2.0.conv2.weight"])
        torch.testing.assert_close(encoder.bn1.running_var, state["bn1.running_var"])


def test_other_norms_take_scale_and_shift(weights):
    encoder = ResNetEncoder(
        3, conv_op=nn.Conv2d, norm=lambda channels: nn.InstanceNorm2d(channels, affine=True), **SMALL
    )
    encoder.load_weights(weights)
    torch.testing.assert_close(encoder.bn1.weight.data, torch.load(weights)["bn1.weight"])


def test_imagenet_weights_come_from_timm(monkeypatch):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet34", pretrained=False)
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: asked.append((name, pretrained)) or model)
    encoder = ResNetEncoder(1, conv_op=nn.Conv2d)
    encoder.load_weights("imagenet")
    assert asked == [("resnet34.tv_in1k", True)]
    torch.testing.assert_close(encoder.conv1.weight, model.conv1.weight.sum(1, keepdim=True))
    torch.testing.assert_close(encoder.layer4[2].conv2.weight, model.layer4[2].conv2.weight)


def test_without_network_the_message_names_the_remedy(monkeypatch):
    import timm

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        UserError, match=r"(?s)could not download the ImageNet weights resnet34\.tv_in1k.*no route.*give a local \.pth"
    ):
        ResNetEncoder(1, conv_op=nn.Conv2d).load_weights("imagenet")


def test_refuses_weights_that_do_not_fit(weights, tmp_path):
    with pytest.raises(UserError, match=r"no ImageNet weights for this ResNet .*, only for"):
        ResNetEncoder(1, conv_op=nn.Conv2d, **SMALL).load_weights("imagenet")
    with pytest.raises(UserError, match=r"file of encoder weights not found: .*absent"):
        ResNetEncoder(1, conv_op=nn.Conv2d, **SMALL).load_weights(tmp_path / "absent.pth")
    with pytest.raises(UserError, match=r"another network: they lack layer2\.1"):
        ResNetEncoder(3, conv_op=nn.Conv2d, layers=(1, 2), width=8).load_weights(weights)
    with pytest.raises(UserError, match=r"this encoder has no layer2\.0"):
        ResNetEncoder(3, conv_op=nn.Conv2d, layers=(1,), width=8).load_weights(weights)
    with pytest.raises(UserError, match=r"do not fit: conv1\.weight is \(8, 3, 7, 7\)"):
        ResNetEncoder(3, conv_op=nn.Conv2d, layers=(1, 1), width=4).load_weights(weights)
    text = tmp_path / "text.pth"
    text.write_text("nothing")
    with pytest.raises(UserError, match="does not contain encoder weights"):
        ResNetEncoder(3, conv_op=nn.Conv2d, **SMALL).load_weights(text)
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"conv1\.weight is missing"):
        ResNetEncoder(3, conv_op=nn.Conv2d, **SMALL).load_weights(tmp_path / "other.pth")


def test_refuses_wrong_arguments():
    with pytest.raises(UserError, match="no block 'dense'"):
        ResNetEncoder(1, conv_op=nn.Conv2d, block="dense")
    with pytest.raises(UserError, match="norm is 'layer'"):
        ResNetEncoder(1, conv_op=nn.Conv2d, norm="layer")
    with pytest.raises(UserError, match="basic blocks have one group"):
        ResNetEncoder(1, conv_op=nn.Conv2d, groups=4)
    with pytest.raises(UserError, match="strides of a ResNet with 2 layers in 3D needs 3 entries"):
        ResNetEncoder(1, conv_op=nn.Conv3d, strides=[(2, 2)] * 3, **SMALL)


@pytest.mark.parametrize("conv_op", [nn.Conv2d, nn.Conv3d])
def test_every_parameter_learns_and_cases_do_not_mix(conv_op):
    torch.manual_seed(0)
    encoder = ResNetEncoder(1, conv_op=conv_op, **SMALL)
    x = torch.randn(2, 1, *(12, 16, 24)[: 2 if conv_op is nn.Conv2d else 3])
    sum((y * torch.randn_like(y)).sum() for y in encoder(x)).backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    encoder.eval()
    torch.testing.assert_close(encoder(x)[-1][:1], encoder(x[:1])[-1], rtol=1e-4, atol=1e-5)
