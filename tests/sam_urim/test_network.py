"""The whole network: counts, phases, streams, cascades, and what it refuses."""

import pytest
import torch
import torchvision
from torch.nn import functional as F

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.networks.sam_urim import FUSIONS
from nnunet_livseg.networks.unet import initialize

from .small import CODE_READINGS, build, count

SIZE = (16, 32, 48)


def image(dim, channels=2, batch=2):
    return torch.randn(batch, channels, *SIZE[-dim:], generator=torch.Generator().manual_seed(0))


# --- counts -----------------------------------------------------------------------------------------------------------


def authors(**options):
    with torch.device("meta"):
        return build(2, 6, 2, backbone="resnext50", channels_per_phase=3, **CODE_READINGS, **options)


def test_counts_of_the_authors_code():
    network = authors()
    assert count(network.encoder) == 22_979_904
    assert count(network.fusions) == 100_945_920
    assert [count(sam) for sam in network.fusions] == [1_224_704, 4_808_704, 19_054_592, 75_857_920]
    assert count(network.decoder) == 23_206_402
    assert count(network.urim) == 741_378
    assert count(network) == 147_873_604


@pytest.mark.parametrize(
    ("reduction", "total"), [(1, 403_737_600), (4, 100_945_920), (16, 25_248_000), (4096, 294_592)]
)
def test_counts_of_other_branch_widths(reduction, total):
    assert count(authors(branch_reduction=reduction).fusions) == total


def test_separate_streams_have_an_encoder_each():
    assert count(authors(share_streams=False)) == 147_873_604 + 22_979_904


def test_counts_in_3d_on_nnunets_features():
    with torch.device("meta"):
        network = build(3, widths=(32, 64, 128, 256, 320, 320))
    assert count(network.fusions) == 16_506_880
    assert len(network.fusions) == 4


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_is_what_its_blocks_say(dim):
    """Encoder, SAM and feedback stage by stage, decoder, URIM, up-sampling: section 2 and Fig. 1."""
    torch.manual_seed(0)
    network, x = build(dim).eval(), image(dim)
    mode = "trilinear" if dim == 3 else "bilinear"
    first, second, levels = x[:, :1], x[:, 1:], []
    for i, stage in enumerate(network.encoder.stages):
        first, second = stage(first), stage(second)
        if i >= 2:  # quarter resolution and coarser
            aggregated, (first, second) = network.fusions[i - 2]([first, second])
            levels.append(aggregated)
    size = [n // 4 for n in x.shape[2:]]
    maps = [conv(F.interpolate(a, size, mode=mode)) for conv, a in zip(network.decoder.levels, levels, strict=True)]
    features = network.decoder.fuse(torch.cat(maps, 1))
    initial = network.decoder.seg_layers[0](network.decoder.refine(features))
    final = network.urim(initial, features)
    network.decoder.deep_supervision = True
    ours = network(x)
    torch.testing.assert_close(ours[0], F.interpolate(final, x.shape[2:], mode=mode))
    torch.testing.assert_close(ours[1], F.interpolate(initial, x.shape[2:], mode=mode))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_but_single_sees_the_second_phase(fusion):
    torch.manual_seed(0)
    network, x = build(fusion=fusion).eval(), image(2)
    network.apply(initialize)
    changed = x.clone()
    changed[:, 1] += torch.randn(SIZE[-2:])
    with torch.no_grad():
        same = torch.allclose(network(x), network(changed))
    assert same == (fusion == "single")


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("phases", [1, 3])
def test_other_numbers_of_phases(fusion, phases):
    network = build(channels=phases, fusion=fusion, deep_supervision=True)
    outputs = network(image(2, phases))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 32, 48)] * 2
    sum(o.square().mean() for o in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    if phases == 1:
        assert count(network) == count(build(channels=1, fusion="single"))


@pytest.mark.parametrize("fusion", ["sam", "ilf", "dlf", "single"])
def test_a_cascades_segmentation_reaches_every_stream(fusion):
    """Input: two phases and two foreground labels of the previous stage."""
    torch.manual_seed(0)
    network, x = build(channels=4, image_channels=2, fusion=fusion).eval(), image(2, 4)
    streams = network.split(x)
    phases = {"ilf": [x[:, :2]], "single": [x[:, :1]]}.get(fusion, [x[:, :1], x[:, 1:2]])
    for stream, phase in zip(streams, phases, strict=True):
        torch.testing.assert_close(stream, torch.cat([phase, x[:, 2:]], 1))
    assert network(x).shape == (2, 3, 32, 48)


def test_neighboring_slices_belong_to_their_phase():
    network = build(channels=6, channels_per_phase=3)
    x = image(2, 6)
    first, second = network.split(x)
    assert torch.equal(first, x[:, :3]) and torch.equal(second, x[:, 3:])


def test_streams_of_their_own_differ_from_shared_ones():
    torch.manual_seed(0)
    network, x = build(share_streams=False).eval(), image(2)
    with torch.no_grad():
        before = network(x)
        network.other_encoders[0].load_state_dict(network.encoder.state_dict())
        same = network(x)
        shared = build().eval()
        shared.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("other_encoders")})
        torch.testing.assert_close(shared(x), same)
    assert not torch.allclose(before, same)


def test_regions_reach_the_confidence():
    torch.manual_seed(0)
    classes, x = build(classes=2).eval(), image(2)
    regions = build(classes=2, regions=True).eval()
    regions.load_state_dict(classes.state_dict())
    assert regions.urim.regions and not classes.urim.regions
    assert not torch.allclose(regions(x), classes(x))


def test_residual_encoder_plans_work():
    changes = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 1, 2, 2, 2]}
    network, x = build(changes=changes).eval(), image(2)
    maps = network.encoder(x[:, :1])
    single = build(changes=changes, fusion="single").eval()
    single.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("fusions")})
    torch.testing.assert_close(single.features(x), single.decoder(maps[2:]))


def test_heads_are_left_out_by_nnunets_pretrained_weights():
    heads = [name for name in build().state_dict() if ".seg_layers." in name]
    first = "urim.convs.0.seg_layers.0.weight"  # reads the probabilities of all classes
    assert heads == ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias", first, "urim.seg_layers.0.weight",
                     "urim.seg_layers.0.bias"]  # fmt: skip


@pytest.mark.parametrize("readings", [{}, CODE_READINGS | {"norm": "batch"}], ids=["text", "code"])
def test_training_step_is_finite_in_half_precision_with_large_images(readings):
    torch.manual_seed(0)
    network = build(deep_supervision=True, **readings)
    with torch.autocast("cpu", dtype=torch.float16):
        outputs = network(1e4 * image(2))
    assert all(output.isfinite().all() for output in outputs)
    sum(output.float().log_softmax(1).square().mean() for output in outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


# --- ResNets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet50", "resnext50"])
def test_resnets_are_torchvisions_and_are_fused_from_a_quarter_on(backbone):
    torch.manual_seed(0)
    network = build(2, 3, 2, backbone=backbone, channels_per_phase=3, decoder_features=4, urim=False).eval()
    reference = {"resnet50": torchvision.models.resnet50, "resnext50": torchvision.models.resnext50_32x4d}[backbone]()
    weights = {name: tensor for name, tensor in reference.state_dict().items() if not name.startswith("fc")}
    network.encoder.load_state_dict(weights)
    reference.eval()
    x = image(2, 3, batch=1)
    with torch.no_grad():
        y, maps = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x)))), []
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            y = layer(y)
            maps.append(y)
        assert [m.shape[2] for m in maps] == [8, 4, 2, 1]
        torch.testing.assert_close(network.features(x), network.decoder(maps))


def test_every_parameter_of_a_resnet_learns_in_one_step():
    torch.manual_seed(0)
    network = build(
        2, 2, 2, backbone="resnet50", branch_reduction=64, decoder_features=8, deep_supervision=True, **CODE_READINGS
    )
    sum(o.square().mean() for o in network(image(2))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.compute_conv_feature_map_size((64, 96)) > 0  # batch normalization takes no single case in training
    assert network.training


@pytest.mark.parametrize("dim", [2, 3])
def test_the_authors_readings_are_one_graph_too(dim):
    torch.manual_seed(0)
    network = build(dim, norm="batch", deep_supervision=True, **(CODE_READINGS | {"dropout": 0.0})).eval()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image(dim)), network(image(dim)), rtol=1e-3, atol=1e-3)


def test_a_local_file_of_imagenet_weights_is_loaded(tmp_path):
    weights = torchvision.models.resnet50().state_dict()
    torch.save(weights, tmp_path / "resnet50.pth")
    options = {"backbone": "resnet50", "decoder_features": 4, "branch_reduction": 64}
    network = build(2, 2, 2, pretrained=str(tmp_path / "resnet50.pth"), **options)
    assert "resnet50.pth" in network.load_pretrained()
    assert torch.equal(network.encoder.layer4[0].conv1.weight, weights["layer4.0.conv1.weight"])
    assert build(2, 2, 2, **options).load_pretrained() is None


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_sam_on_resnets_in_3d_is_refused():
    with torch.device("meta"), pytest.raises(UserError, match="SAM on 1024 channels in 3D would have 57 million"):
        build(3, backbone="resnext50")


def test_other_fusions_of_resnets_work_in_3d():
    with torch.device("meta"):
        network = build(3, backbone="resnet50", fusion="add", decoder_features=4, widths=(4, 4, 4, 4, 4, 4))
    assert network.compute_conv_feature_map_size((16, 64, 64)) > 0


@pytest.mark.parametrize("option", ["fusion", "backbone", "norm", "lc_bias"])
def test_unknown_options_are_refused(option):
    with pytest.raises(UserError, match=f"option {option} is 'nonsense', but must be one of"):
        build(**{option: "nonsense"})


@pytest.mark.parametrize(("channels", "image_channels"), [(5, None), (6, 5), (2, 3)])
def test_broken_phases_are_refused(channels, image_channels):
    with pytest.raises(UserError, match=r"is not a whole number of phases of 2 channels each"):
        build(channels=channels, image_channels=image_channels, channels_per_phase=2)


def test_too_shallow_plans_are_refused():
    with pytest.raises(UserError, match="the last of these plans' 2 stages has stride 2"):
        build(widths=(4, 8))


def test_imagenet_weights_of_the_unet_are_refused():
    with pytest.raises(UserError, match="no ImageNet weights for the U-Net encoder"):
        build(pretrained="imagenet")
