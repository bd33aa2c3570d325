"""What must hold for every network of the table."""

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch.nn.modules.conv import _ConvNd

from nnunet_livseg.plans import settings
from nnunet_livseg.reference import build

from .conftest import ROWS, small_configuration

# tracing takes seconds: every row in its least dimension, and every network class in its largest as well
LARGEST = {variant.network: (variant, max(variant.dims)) for variant, _ in reversed(ROWS)}
GRAPHS = [row for row in ROWS if row[1] == min(row[0].dims) or row in LARGEST.values()]


def test_outputs_are_those_declared(network, scan):
    declared = network.training_outputs()
    outputs = network(scan)
    assert len(outputs) == len(declared)
    for output, declaration in zip(outputs, declared, strict=True):
        sizes = tuple(size // stride for size, stride in zip(scan.shape[2:], declaration.stride, strict=True))
        assert output.shape == (2, 3, *sizes), declaration
    assert set(declared[0].stride) == {1}, "the first output must be the prediction at full resolution"
    assert sum(declaration.weight for declaration in declared) > 0


def test_prediction_is_the_first_training_output(network, scan):
    network.eval()
    with torch.no_grad():
        first = network(scan)[0]
        network.decoder.deep_supervision = False
        torch.testing.assert_close(network(scan), first, rtol=1e-4, atol=1e-4)


def test_cases_of_a_batch_do_not_mix(network, scan):
    network.eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        torch.testing.assert_close(network(scan)[:1], network(scan[:1]), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_in_one_step(configuration, variant, scan):
    """DDP stops at a parameter without a gradient, and a dead branch is a bug.

    In networks this narrow a ReLU may by chance be 0 everywhere; a branch is dead if it is so from every start.
    """
    silent = None
    for seed in range(4):
        torch.manual_seed(seed)
        network = build(configuration, variant, channels=scan.shape[1])
        quiet = parameters_without_effect(network, scan)
        silent = quiet if silent is None else silent & quiet
        if not silent:
            break
    assert not silent


def parameters_without_effect(network, scan):
    """Names of the weights whose gradient is 0 after one step; each must have a gradient, and a finite one."""
    for parameter in network.parameters():  # leave zero-initialised gates, where gradients vanish
        parameter.data.add_(0.01)
    weights = [declaration.weight for declaration in network.training_outputs()]
    total = sum(w * o.float().log_softmax(1).square().mean() for w, o in zip(weights, network(scan), strict=True) if w)
    total.backward()
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    assert not [name for name, p in trained if p.grad is None or not p.grad.isfinite().all()]
    # a bias before an instance normalisation has no effect, in nnU-Net's own network too
    return {name for name, p in trained if not p.grad.any() and not name.endswith("bias")}


@pytest.mark.parametrize("row", GRAPHS, ids=lambda row: f"{row[0].name}-{row[1]}d", indirect=True)
def test_one_graph_without_breaks(network, scan):
    """torch.compile(fullgraph=True) raises at the first thing that it cannot trace."""
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    results = []
    for run in (compiled, network):
        torch.manual_seed(0)  # dropout
        results.append(run(scan)[0])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


def test_feature_map_estimate_counts_every_convolution(network, scan):
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += output[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, _ConvNd)]
    network.eval()  # in training, recomputation would run some of them twice
    network(scan)
    for hook in hooks:
        hook.remove()
    assert network.compute_conv_feature_map_size(scan.shape[2:]) == counted


def test_plans_build_it_by_import_path(configuration, variant):
    """nnU-Net's own trainers build what the plans name."""
    architecture = settings(variant, configuration).architecture
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    )
    assert f"{type(network).__module__}.{type(network).__qualname__}" == variant.network


@pytest.mark.parametrize("stages", [4, 6, 8])
def test_any_depth_of_plans(variant, dim, stages):
    configuration = small_configuration(dim, stages)
    strides = configuration["architecture"]["arch_kwargs"]["strides"]
    for i in range(5, stages):  # as nnU-Net plans deep networks: axes stop one after the other
        strides[i] = [1, 1 + i % 2, 2 - i % 2][-dim:]
    network = build(configuration, variant, channels=2).eval()
    network.decoder.deep_supervision = False
    size = (16, 64, 64)[-dim:]
    with torch.no_grad():
        assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


def test_anisotropic_kernels_and_strides(variant, dim):
    """The first stages of thick-slice plans: kernel 1 and stride 1 across slices."""
    configuration = small_configuration(dim)
    kwargs = configuration["architecture"]["arch_kwargs"]
    if dim == 3:
        kwargs["kernel_sizes"][0] = kwargs["kernel_sizes"][1] = [1, 3, 3]
        kwargs["strides"][1] = kwargs["strides"][2] = [1, 2, 2]
    network = build(configuration, variant, channels=2)
    size = (8, 48, 32)[-dim:]
    for output, declaration in zip(network(torch.randn(2, 2, *size)), network.training_outputs(), strict=True):
        expected = tuple(n // stride for n, stride in zip(size, declaration.stride, strict=True))
        assert tuple(output.shape[2:]) == expected


def test_finite_under_autocast_with_large_inputs(network, scan):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(scan * 1e4)
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row[1] == min(row[0].dims)], ids=lambda row: row[0].name, indirect=True
)
def test_nnunets_pretrained_weights_fit_another_number_of_classes(configuration, variant, scan, tmp_path):
    """nnU-Net's own function asks for every tensor that it does not take for a head, in its shape."""
    few, many = (build(configuration, variant, channels=scan.shape[1], classes=classes) for classes in (2, 5))
    torch.save({"network_weights": few.state_dict()}, tmp_path / "few.pth")
    load_pretrained_weights(many, str(tmp_path / "few.pth"))
    theirs, ours = few.state_dict(), many.state_dict()
    heads = {name for name in ours if ".seg_layers." in name}
    torch.testing.assert_close(*({name: of[name] for name in of.keys() - heads} for of in (ours, theirs)))
