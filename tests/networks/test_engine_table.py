"""Every row of the table in every engine: pytest --long -m long tests/networks/test_engine_table.py

Measured rows are kept in docs/reference/engines.json and not run again.
"""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_livseg.core.files import write_text
from nnunet_livseg.reference_networks import build

from .conftest import SHALLOW, SHALLOW_SIZE, small_configuration, tiny
from .engine_table import FLOAT32, PAGE, PATCHES, entries, graphs, page, record


def test_the_page_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == page(entries()), "stale: python tests/networks/engine_table.py"


def test_what_was_measured_is_whole_or_has_a_reason():
    found = entries()
    assert list(found) == [name for name in graphs() if name in found]
    for name, entry in found.items():
        for engine in FLOAT32:
            reason = entry["not_exported"].get(engine)
            assert reason or set(entry["parity"][engine]) == set(PATCHES), name


def test_the_page_shows_differences_and_reasons():
    parity = {"largest_difference": 0.002, "largest_logit": 4.0, "equal_labels": 0.99975}
    entry = {"parity": {"openvino": {"ct": parity}}, "not_exported": {"onnxruntime": "no such | thing"}, "versions": ""}
    (line,) = [line for line in page({"dpcnet 3d": entry}).splitlines() if "| `DPCNetTrainer` | 3D |" in line]
    assert line.endswith("|  |  |  | 5e-04, 99.975% | onnxruntime: no such   thing |")


@pytest.fixture(scope="session")
def real_patch(real_data):
    """Two channels (z, y, x) through the liver, as nnU-Net normalizes CTs; the second is the first, moved."""
    hu = sitk.GetArrayFromImage(sitk.ReadImage(real_data / "ircad17" / "ct.nii.gz"))
    labels = sitk.GetArrayViewFromImage(sitk.ReadImage(real_data / "ircad17" / "label_liver1_tumor2.nii.gz"))
    z, y, x = (int(np.median(axis)) for axis in np.nonzero(labels == 2))
    spread = [slice(c - 2 * n, c + 2 * n, 4) for c, n in zip((z, y, x), (4, *SHALLOW_SIZE[1:]), strict=True)]
    spread[0] = slice(z - SHALLOW_SIZE[0] // 2, z + SHALLOW_SIZE[0] // 2)
    patch = (np.clip(hu[tuple(spread)], -40, 160).astype(np.float32) - 100) / 40
    return torch.from_numpy(np.stack([patch, np.roll(patch, 1, axis=2)]))


@pytest.mark.long
@pytest.mark.parametrize("name", list(graphs()))
def test_row(name, real_patch, tmp_path):
    if name in entries():
        pytest.skip("measured before")
    from nnunet_livseg.inference.export_model import compared, write_onnx

    row, dim = graphs()[name]
    torch.manual_seed(0)
    network = build(small_configuration(dim, SHALLOW, SHALLOW_SIZE), tiny(row), channels=2, deep_supervision=False)
    patches = {
        "random": torch.randn(1, *real_patch.shape, generator=torch.Generator().manual_seed(0)),
        "ct": real_patch[None],
    }
    if dim == 2:
        patches = {key: patch[:, :, patch.shape[2] // 2] for key, patch in patches.items()}
    path = tmp_path / "network.onnx"
    if reason := write_onnx(network.eval(), patches["random"], path):
        found, reasons = {}, dict.fromkeys(FLOAT32, reason)
    else:
        found, reasons = compared(network, path, patches, decide=lambda logits: logits.argmax(0))
    parity = {engine: {key: vars(one) for key, one in found[engine].items()} for engine in FLOAT32 if engine in found}
    record(name, {"parity": parity, "not_exported": reasons})
    write_text(PAGE, page(entries()))
