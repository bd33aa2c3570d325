"""Model folders whose weights are no pickle."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import as_image
from known_model import drawing, make_model

from nnunet_livseg import segment
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference.safe_weights import (
    SafeWeights,
    read_safe_weights,
    weights_of_checkpoint,
    write_safe_weights,
)
from nnunet_livseg.inference.trained_model import SAFE_CHECKPOINT


def without_pickle(model):
    """The model with safetensors in place of its checkpoints."""
    for checkpoint in list(model.glob("fold_*/*.pth")):
        write_safe_weights(weights_of_checkpoint(checkpoint), checkpoint.with_name(SAFE_CHECKPOINT))
        checkpoint.unlink()
    return model


@pytest.mark.parametrize("options", [{"thresholds_hu": (90.0, 150.0)}, {"configuration": "2d"}], ids=["folds", "2d"])
def test_the_label_map_is_that_of_the_checkpoints(options, tmp_path):
    image = as_image(drawing()[0])
    model = make_model(tmp_path / "results", **options)
    expected = segment(image, model, device="cpu")
    found = segment(image, without_pickle(model), device="cpu")
    assert np.array_equal(*(sitk.GetArrayFromImage(result.labels) for result in (expected, found)))
    assert found.provenance.settings["mirroring"] == "yes"
    assert found.provenance.checkpoint == SAFE_CHECKPOINT


def test_a_tensor_with_two_names_is_stored_once_and_half_precision_is_read_as_single(tmp_path):
    shared = torch.randn(4, 1000)
    weights = SafeWeights({"a": shared, "b": shared, "c": torch.ones(3)}, "T", "2d", None)
    sizes = {}
    for half in (False, True):
        path = tmp_path / f"{half}.safetensors"
        write_safe_weights(weights, path, half=half)
        sizes[half] = path.stat().st_size
        read = read_safe_weights(path)
        assert (read.trainer, read.configuration, read.mirroring_axes) == ("T", "2d", None)
        assert {name: tensor.dtype for name, tensor in read.parameters.items()} == dict.fromkeys("abc", torch.float32)
        torch.testing.assert_close(dict(read.parameters), dict(weights.parameters), rtol=1e-3 if half else 0, atol=1e-6)
    assert sizes[False] < 4 * 4100 and sizes[True] < 2 * 4100 + 500


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_damaged_weights_are_one_message(damage, tmp_path):
    model = without_pickle(make_model(tmp_path / "results"))
    path = model / "fold_0" / SAFE_CHECKPOINT
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        from safetensors.torch import save_file

        save_file({"lines.weight": torch.ones(1)}, path)
    with pytest.raises(UserError, match=r"cannot be read: .*\n  The file is damaged or was not written by"):
        segment(as_image(drawing()[0]), model, device="cpu")
