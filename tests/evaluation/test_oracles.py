"""Values against other people's programs, where they are installed and define the number as we do."""

import numpy as np
import pytest

from nnunet_livseg.evaluation.mask_pair import MaskPair
from nnunet_livseg.evaluation.metrics import structure_scores
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.surface_distances import SurfaceDistances

pytestmark = pytest.mark.oracle

SPACINGS = [(2.5, 0.8, 0.8), (1.0, 1.0, 1.0), (0.7, 1.3, 3.0)]


def _cases(draw):
    """Random blobs (they touch the border), a one-voxel lesion beside one, boxes apart."""
    yield from ((draw.blob(seed, level=0.2), draw.blob(seed + 100)) for seed in range(4))
    yield draw.box((3, 4), (3, 4), (3, 4)), draw.box((9, 12), (8, 20), (0, 3))
    yield draw.box((0, 20), (0, 30), (0, 40)), draw.box((5, 9), (9, 20), (30, 40))


@pytest.fixture(params=SPACINGS, ids=str)
def pairs(request, draw):
    return [MaskPair.of(a, b, request.param) for a, b in _cases(draw)]


def test_dice_is_nnunets(draw):
    evaluate = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions", reason="nnU-Net is not installed")
    for a, b in _cases(draw):
        tp, fp, fn, _ = evaluate.compute_tp_fp_fn_tn(b, a)
        found = structure_scores(MaskPair.of(a, b, (1, 1, 1)))
        assert found["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn), rel=1e-12)
        assert found["jaccard"] == pytest.approx(tp / (tp + fp + fn), rel=1e-12)


def test_distances_are_medpys(pairs):
    binary = pytest.importorskip("medpy.metric.binary", reason="MedPy (GPL, dev only) is not installed")
    for pair in pairs:
        a, b = pair.predicted, pair.reference
        ours = SurfaceDistances.of(pair)
        arguments = {"voxelspacing": pair.spacing_mm, "connectivity": 1}
        assert ours.hd_mm() == pytest.approx(binary.hd(a, b, **arguments), rel=1e-6)
        assert ours.hd95_mm("pooled") == pytest.approx(binary.hd95(a, b, **arguments), rel=1e-6)
        assert ours.from_predicted.mean() == pytest.approx(binary.asd(a, b, **arguments), rel=1e-6)
        assert ours.from_reference.mean() == pytest.approx(binary.asd(b, a, **arguments), rel=1e-6)
        assert structure_scores(pair)["rvd"] == pytest.approx(binary.ravd(a, b), rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_distances_are_monais(pairs):
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    import torch

    for pair in pairs:
        a, b = (torch.from_numpy(mask)[None, None].float() for mask in (pair.predicted, pair.reference))
        found = structure_scores(pair, Options(nsd="voxels", tolerances=(1.7,)))
        kw = {"include_background": True, "spacing": pair.spacing_mm}
        assert found["hd"] == pytest.approx(metrics.compute_hausdorff_distance(a, b, **kw).item(), rel=1e-6)
        # MONAI interpolates the percentile in single precision (1e-6 off): its distances, a double's percentile
        edges = metrics.utils.get_mask_edges(pair.predicted, pair.reference)
        directed = [
            np.percentile(metrics.utils.get_surface_distance(x, y, spacing=pair.spacing_mm), 95)
            for x, y in (edges, edges[::-1])
        ]
        assert found["hd95"] == pytest.approx(max(directed), rel=1e-6)
        hd95 = metrics.compute_hausdorff_distance(a, b, percentile=95, **kw).item()
        assert found["hd95"] == pytest.approx(hd95, rel=1e-5)
        assd = metrics.compute_average_surface_distance(a, b, symmetric=True, **kw).item()
        assert found["assd"] == pytest.approx(assd, rel=1e-6)
        nsd = metrics.compute_surface_dice(a, b, class_thresholds=[1.7], **kw).item()
        assert found["nsd_1.7"] == pytest.approx(nsd, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dim", [2, 3])
def test_surface_dice_is_surface_distances(draw, monkeypatch, dim):
    surface_distance = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    from scipy import ndimage

    for old in ("morphology", "filters"):  # namespaces that SciPy has removed and the package still uses
        if not hasattr(ndimage, old):
            monkeypatch.setattr(ndimage, old, ndimage, raising=False)
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    tolerances = (0.0, 0.9, 1.7, 4.3)
    for spacing in SPACINGS:
        for a, b in _cases(draw):
            if dim == 2:
                a, b = a[3], b[3] | np.eye(*b.shape[1:], dtype=bool)
            spacing = spacing[-dim:]
            found = structure_scores(MaskPair.of(a, b, spacing), Options(tolerances=tolerances))
            expected = surface_distance.compute_surface_distances(b, a, spacing)
            for t in tolerances:
                theirs = surface_distance.compute_surface_dice_at_tolerance(expected, t) if a.any() else 0.0
                assert found[f"nsd_{t:g}"] == pytest.approx(theirs, rel=1e-6), (t, spacing)
