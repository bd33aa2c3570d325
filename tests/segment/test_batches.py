"""Several patches at a time: the same labels as nnU-Net's patch by patch, for every sort of model."""

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import as_image
from known_model import drawing, make_model

from nnunet_livseg.inference.quality import PRESETS, Quality, quality_of
from nnunet_livseg.inference.segmenter import Segmenter
from nnunet_livseg.multiscale import multiscale_predictor

ONE = Quality("one", all_folds=False, mirroring=True, step_size=0.5)
SEVERAL = Quality("several", all_folds=False, mirroring=True, step_size=0.5, in_batches=True)


@pytest.fixture(scope="module")
def image():
    hu = drawing()[0]
    return as_image((hu + np.random.default_rng(0).integers(-30, 30, hu.shape)).astype(np.int16))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"outputs": "regions"},
        {"configuration": "2d"},
        {"configuration": "3d_cascade_fullres", "previous": "3d_lowres"},
    ],
    ids=["labels", "regions", "2d", "cascade"],
)
def test_labels_are_those_of_patch_by_patch(tmp_path, image, options):
    if "previous" in options:
        make_model(tmp_path, configuration="3d_lowres", spacing_mm=(5.0, 1.6, 1.4))
    model = make_model(tmp_path, **options)
    found = {}
    for quality in (ONE, SEVERAL):
        segmenter, sizes = Segmenter(model, quality=quality, device="cpu", crop=False, uncertainty=True), []
        network = segmenter.predictor.nnunet.network
        network.register_forward_pre_hook(lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        result = segmenter.segment(image)
        found[quality.name] = result, sizes
    (one, single), (several, batches) = found.values()
    assert set(single) == {1} and max(batches) > 1 and sum(batches) == sum(single)
    labels = [sitk.GetArrayFromImage(result.labels) for result in (one, several)]
    assert len(np.unique(labels[0])) == 3 and np.mean(labels[0] != labels[1]) < 1e-4  # where logits tie
    uncertain = [sitk.GetArrayFromImage(result.uncertainty) for result in (one, several)]
    assert np.abs(uncertain[0] - uncertain[1]).max() < 0.011  # steps of 0.01
    assert several.provenance.settings["patches at a time"] == str(max(batches))
    assert "patches at a time" not in one.provenance.settings


@pytest.mark.parametrize(
    ("patch", "count"),
    [((128, 128, 128), 1), ((96, 96, 96), 1), ((64, 80, 80), 2), ((32, 32, 32), 8), ((512, 512), 4)],
)
def test_the_patch_alone_says_how_many(patch, count):
    predictor = multiscale_predictor((1.0,))(allow_tqdm=False)
    predictor.configuration_manager = type("Configuration", (), {"patch_size": patch})
    assert predictor.patches_at_a_time == 1  # as in nnU-Net, unless it is asked for
    predictor.in_batches = True
    assert predictor.patches_at_a_time == count


def test_fast_has_it_and_standard_has_not():
    assert [name for name, preset in PRESETS.items() if preset.in_batches] == ["fast", "balanced"]
    assert quality_of("standard", in_batches=True).in_batches
    assert not quality_of("fast", in_batches=False).in_batches
