"""What must hold for every network of the table."""

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nnunet_livseg.inference.devices import predict_in_bfloat16
from nnunet_livseg.plans import training_setup
from nnunet_livseg.reference_networks import build
from nnunet_livseg.variants import find_variant

from .conftest import ROWS, SHALLOW, SHALLOW_SIZE, marked, random_scan, small_configuration

# tracing takes seconds, so each row is traced once: one of every network class in its largest dimension, others in 2D
LARGEST = {variant.network: (variant, max(variant.dims)) for variant, _ in reversed(ROWS)}
_LARGE = {variant.name for variant, _ in LARGEST.values()}
GRAPHS = [row for row in ROWS if row in LARGEST.values() or (row[0].name not in _LARGE and row[1] == min(row[0].dims))]
# rows that differ in loss or recipe alone have one graph
GRAPHS = list({(row.network, repr(row.options), dim): (row, dim) for row, dim in reversed(GRAPHS)}.values())[::-1]
SHALLOWEST, SHALLOWEST_SIZE = 3, (16, 24, 32)


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


def test_a_cpu_predicts_in_bfloat16(shallow_network, shallow_scan):
    network, scan = shallow_network.eval(), shallow_scan
    network.decoder.deep_supervision = False
    with torch.inference_mode():
        expected = network(scan)
        predict_in_bfloat16(network)
        found = network(scan)
    assert found.dtype == torch.float32
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.2, "not rounded, or too much"


def test_cases_of_a_batch_do_not_mix(network, scan):
    network.eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        torch.testing.assert_close(network(scan)[:1], network(scan[:1]), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_in_one_step(shallow_network, shallow_scan):
    """DDP stops at a parameter without a gradient, and a dead branch is a bug."""
    assert not parameters_without_effect(shallow_network, shallow_scan)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ((find_variant("mfcnet"), 3), "context.0.extractors.spatial.query"),
        ((find_variant("dpcnet"), 2), "spacor.modules_per_level.1.g"),
        ((find_variant("sam-urim"), 2), "urim.convs.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0].name}-{value[1]}d",
    indirect=["row"],
)
def test_a_part_that_is_cut_off_is_found(shallow_network, shallow_scan, part):
    """The test above would see it: the output of one part takes no gradient, as a forgotten ``detach`` does."""
    cut_off = shallow_network.get_submodule(part)
    cut_off.register_forward_hook(lambda module, inputs, output: output.detach())
    weights = {n for n, p in cut_off.named_parameters(part) if not n.endswith("bias")}
    assert weights and weights <= parameters_without_effect(shallow_network, shallow_scan)


def parameters_without_effect(network, scan):
    """Names of the weights whose gradient is 0 after one step; biases are left out.

    Nothing here depends on a lucky start. A narrow ReLU network may be 0, or constant, over a whole map, and then even
    a healthy query or key learns nothing; so every activation becomes a softplus, which is never flat. The gradient is
    then an analytic function of the weights: for random weights it is 0 only where it is 0 for all of them, and in
    float64 it is not rounded to 0 (the smallest one of any row is 1e-10 of the weight it belongs to).
    """
    with_smooth_activations(network.double())
    for parameter in network.parameters():  # leave zero-initialized gates, where gradients vanish
        parameter.data.add_(0.01)
    outputs = network(scan.double())
    weights = [declaration.weight for declaration in network.training_outputs()]
    total = sum(w * o.log_softmax(1).square().mean() for w, o in zip(weights, outputs, strict=True) if w)
    total.backward()
    # a bias before an instance normalization has no effect, in nnU-Net's own network too
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad and not n.endswith("bias")]
    assert all(p.grad is None or p.grad.isfinite().all() for _, p in trained)
    return {n for n, p in trained if p.grad is None or p.grad.abs().max() < 1e-13 * p.detach().abs().max()}


def with_smooth_activations(module):
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, nn.LeakyReLU)):
            setattr(module, name, nn.Softplus())
        else:
            with_smooth_activations(child)


@pytest.mark.parametrize("row", marked(GRAPHS), indirect=True)
def test_one_graph_without_breaks(variant, dim, row):
    """torch.compile(fullgraph=True) raises at the first thing that it cannot trace.

    Every row forward, which takes 2 s; one of every class backward as well (``aot_eager``), which takes three times
    as long and so has fewer stages. The time goes with the number of layers, so that no layer comes twice.
    """
    largest = row in LARGEST.values()
    stages, size = (SHALLOWEST, SHALLOWEST_SIZE) if largest else (SHALLOW, SHALLOW_SIZE)
    scan = random_scan(size[:dim])
    torch.manual_seed(0)
    network = without_repeated_blocks(
        build(small_configuration(dim, stages, size, convolutions=1), variant, channels=2)
    )
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager" if largest else "eager")
    results = []
    for run in (compiled, network):
        torch.manual_seed(0)  # dropout
        results.append(run(scan)[0])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


def without_repeated_blocks(module):
    """Leave the first of equal blocks that follow each other, as in the layers of a ResNet."""
    for child in module.children():
        without_repeated_blocks(child)
    if isinstance(module, nn.Sequential):
        blocks = [(type(block), [weights.shape for weights in block.parameters()]) for block in module]
        for i in reversed(range(1, len(module))):
            if blocks[i] == blocks[i - 1]:
                del module[i]
    return module


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
    architecture = training_setup(variant, configuration).architecture
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
    size = {4: (16, 16, 16), 6: (16, 32, 32), 8: (16, 64, 64)}[stages][-dim:]
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


def test_finite_under_autocast_with_large_inputs(shallow_network, shallow_scan):
    """Shallow, because torch's bfloat16 Conv3d on a CPU reads foreign memory where an axis has one voxel."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = shallow_network(shallow_scan * 1e4)
    assert all(output.isfinite().all() for output in outputs)


class Dtypes(TorchDispatchMode):
    """Collects the types of all tensors that are computed while it is entered."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen |= {leaf.dtype for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)}
        return result


def test_double_precision_stays_double(shallow_network, shallow_scan):
    """Researchers check gradients in float64; a ``.float()`` on the way stops them or rounds without a word."""
    with Dtypes() as dtypes:
        outputs = shallow_network.double()(shallow_scan.double())
        sum(output.square().mean() for output in outputs).backward()
    assert not dtypes.seen & {torch.float32, torch.float16, torch.bfloat16}
    assert all(output.isfinite().all() for output in outputs)
    assert all(p.grad.isfinite().all() for p in shallow_network.parameters() if p.requires_grad)


@pytest.mark.parametrize("row", marked(row for row in ROWS if row[1] == min(row[0].dims)), indirect=True)
def test_nnunets_pretrained_weights_fit_another_number_of_classes(configuration, variant, scan, tmp_path):
    """nnU-Net's own function asks for every tensor that it does not take for a head, in its shape."""
    few, many = (build(configuration, variant, channels=scan.shape[1], classes=classes) for classes in (2, 5))
    torch.save({"network_weights": few.state_dict()}, tmp_path / "few.pth")
    load_pretrained_weights(many, str(tmp_path / "few.pth"))
    theirs, ours = few.state_dict(), many.state_dict()
    heads = {name for name in ours if ".seg_layers." in name}
    torch.testing.assert_close(*({name: of[name] for name in of.keys() - heads} for of in (ours, theirs)))
