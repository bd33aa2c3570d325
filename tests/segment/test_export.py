"""Exported models: a folder without pickle, and engines that run it in torch's place."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import as_image
from known_model import LABELS, drawing, make_model

from nnunet_livseg import segment
from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.inference import engines, export_model
from nnunet_livseg.inference.engines import NETWORK, RECORD, EngineNetwork
from nnunet_livseg.inference.trained_model import SAFE_CHECKPOINT, TrainedModel
from nnunet_livseg.patient.measurements_json import as_record

OTHERS = export_model.OTHERS
FLOAT32 = engines.FLOAT32


def voxels(result):
    return sitk.GetArrayFromImage(result.labels)


@pytest.fixture
def bare(monkeypatch):
    """Neither ONNX nor an engine is installed."""
    for module in (engines, export_model):
        monkeypatch.setattr(module, "find_spec", lambda name: None)


def exported(model, out, **options):
    return export_model.export_model(TrainedModel.open(model), out, **options)


# --- without extras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"thresholds_hu": (90.0, 150.0)}, {"configuration": "2d"}, {"outputs": "regions", "transpose": (1, 0, 2)}],
    ids=["folds", "2d", "regions"],
)
def test_torch_runs_the_folder_whatever_its_name(options, bare, tmp_path):
    image, model = as_image(drawing()[0]), make_model(tmp_path / "results", **options)
    exported(model, tmp_path / "any name")
    assert not list((tmp_path / "any name").rglob("*.pth"))
    found, expected = (segment(image, folder, device="cpu") for folder in (tmp_path / "any name", model))
    assert np.array_equal(voxels(found), voxels(expected))
    assert found.provenance.folds == expected.provenance.folds
    assert "engine" not in found.provenance.settings


def test_the_record_says_what_another_program_needs(bare, tmp_path):
    window = {"percentile_00_5": -40.0, "percentile_99_5": 160.0, "mean": 99.0, "std": 42.0}
    model = make_model(tmp_path / "results")
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"] = {
        "base": {**plans["configurations"]["3d_fullres"], "normalization_schemes": ["CTNormalization"]},
        "3d_fullres": {"inherits_from": "base"},
        "2d": {"never": "used"},
    }
    plans["foreground_intensity_properties_per_channel"] = {"0": window}
    (model / "plans.json").write_text(json.dumps(plans))
    exported(model, tmp_path / "out")
    said = json.loads((tmp_path / "out" / RECORD).read_text())
    assert said["channels"] == [
        {"name": "CT", "normalization": "CTNormalization", "window_hu": [-40, 160], "mean_hu": 99, "sd_hu": 42}
    ]
    assert (said["labels"], said["outputs"], said["exclusive"]) == (LABELS, [0, 1, 2], True)
    assert (said["input_shape"], said["spacing_mm"]) == ([1, 1, 8, 32, 32], [2.5, 0.8, 0.7])
    assert (said["mirroring_axes"], said["parity"]) == ([0, 1, 2], {"0": {}})
    kept = json.loads((tmp_path / "out" / "plans.json").read_text())["configurations"]
    assert list(kept) == ["3d_fullres"] and kept["3d_fullres"]["patch_size"] == [8, 32, 32]


def test_the_command_without_onnx_writes_the_rest_and_says_so(bare, tmp_path, capsys):
    model = make_model(tmp_path / "results")
    assert main(["export", str(model), "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().out
    assert "skipped: openvino: onnx is not installed here: pip install 'nnunet-livseg[onnx]'" in said
    assert (tmp_path / "out" / "fold_0" / SAFE_CHECKPOINT).is_file()
    assert main(["export", str(model), "-o", str(tmp_path / "out")]) == 1
    assert "is not empty, and networks of two exports must not mix" in capsys.readouterr().err


def test_a_network_without_onnx_form_is_named_with_the_reason(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no operator for it\nand more")

    monkeypatch.setattr(export_model, "find_spec", lambda name: None if name in OTHERS else True)
    monkeypatch.setattr(export_model, "version", lambda name: "1")
    monkeypatch.setattr(torch.onnx, "export", fails)
    said = exported(make_model(tmp_path / "results"), tmp_path / "out")
    assert set(said["not_exported"]) == set(OTHERS)
    assert said["not_exported"]["openvino"] == "the network has no ONNX form: RuntimeError: no operator for it"
    with pytest.raises(UserError, match="does not run in openvino: the network has no ONNX form"):
        segment(as_image(drawing()[0]), tmp_path / "out", engine="openvino")


def test_nothing_is_left_of_an_export_that_fails(bare, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    model = make_model(tmp_path / "results")
    monkeypatch.setattr(export_model, "write_safe_weights", fails)
    with pytest.raises(OSError, match="No space"):
        exported(model, tmp_path / "new" / "out")
    assert not list((tmp_path / "new").iterdir())


def test_an_engine_with_other_labels_is_named(monkeypatch):
    expected = torch.zeros(1, 2, 10, 10)
    expected[:, 1] = 1
    other = expected.clone()
    other[0, :, 0, 0] = torch.tensor([4.0, 0.0])
    monkeypatch.setattr(export_model, "is_usable", lambda engine: engine == "openvino")
    monkeypatch.setattr(export_model, "EngineNetwork", lambda *_, **__: lambda x: other)
    patches = {"random": torch.zeros(1, 1, 10, 10)}
    found, reasons = export_model.compared(lambda x: expected, "", patches, decide=lambda logits: logits.argmax(0))
    assert reasons == {"openvino": "only 99.00% of the labels of the random patch equal those of torch."}
    parity = found["openvino"]["random"]
    assert (parity.largest_difference, parity.largest_logit, parity.equal_labels) == (4.0, 1.0, 0.99)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "openvin"}, "there is no engine 'openvin'. Did you mean openvino"),
        ({"engine": "openvino"}, r"was not exported, so only torch can run it.\n  Export it: livseg export"),
        ({"engine": "onnxruntime", "device": "cuda"}, "onnxruntime computes on the CPU, not on cuda"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_message(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        segment(as_image(drawing()[0]), make_model(tmp_path), **options)


def test_an_engine_that_is_not_installed_is_one_message(bare, tmp_path):
    exported(make_model(tmp_path / "results"), tmp_path / "out")
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    (tmp_path / "out" / RECORD).write_text(json.dumps({**record, "not_exported": {}}))
    with pytest.raises(UserError, match=r"openvino is not installed.\n  pip install 'nnunet-livseg\[openvino\]'"):
        segment(as_image(drawing()[0]), tmp_path / "out", engine="openvino")


def test_a_cascade_keeps_its_names(bare, tmp_path):
    second = make_model(tmp_path, configuration="3d_cascade_fullres", previous="3d_lowres", outputs="labels")
    make_model(tmp_path, configuration="3d_lowres")
    with pytest.raises(UserError, match=f"Export both into one folder under their names: -o FOLDER/{second.name}"):
        exported(second, tmp_path / "out")
    for folder in (second, second.with_name("nnUNetTrainer__nnUNetPlans__3d_lowres")):
        exported(folder, tmp_path / "out" / folder.name)
    found, expected = (
        segment(as_image(drawing()[0]), place, device="cpu") for place in (tmp_path / "out" / second.name, second)
    )
    assert np.array_equal(voxels(found), voxels(expected))


# --- with extras ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extras():
    """What the engines need is installed; found and not imported, because importing OpenVINO tells its makers."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime", "openvino") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed (pip install 'nnunet-livseg[oracles]')")


@pytest.fixture(scope="module")
def both(extras, tmp_path_factory):
    """A model of two folds, and what was exported of it."""
    folder = tmp_path_factory.mktemp("exported")
    model = make_model(folder / "results", thresholds_hu=(90.0, 150.0))
    exported(model, folder / "out", ct=[as_image(drawing()[0])])
    return model, folder / "out"


@pytest.mark.oracle
@pytest.mark.parametrize("engine", FLOAT32)
def test_an_engine_gives_torchs_labels_and_the_result_names_it(engine, both, monkeypatch):
    model, folder = both
    image = as_image(drawing()[0])
    expected = segment(image, model, device="cpu", uncertainty=True)
    monkeypatch.setitem(sys.modules, "known_network", None)  # the class cannot be imported anymore
    with pytest.raises(UserError, match="is not installed"):
        segment(image, folder)
    found = segment(image, folder, engine=engine, uncertainty=True)
    assert np.array_equal(voxels(found), voxels(expected))
    assert found.provenance.settings["engine"].startswith(f"{engine} ")
    assert found.provenance.settings["engine"].endswith(", float32")
    assert as_record(found)["made_with"]["settings"]["engine"] == found.provenance.settings["engine"]
    assert found.provenance.device == "cpu" and found.provenance.folds == ("0", "1")


@pytest.mark.oracle
@pytest.mark.parametrize("engine", FLOAT32)
def test_parity_is_written_for_every_fold_and_patch(engine, both):
    said = json.loads((both[1] / RECORD).read_text())
    assert said["not_exported"] == {}
    for fold in ("0", "1"):
        for patch in ("random", "ct"):
            parity = said["parity"][fold][engine][patch]
            assert parity["equal_labels"] == 1 and parity["largest_difference"] <= 1e-5 * parity["largest_logit"]


@pytest.mark.oracle
@pytest.mark.parametrize("engine", FLOAT32)
def test_logits_do_not_depend_on_the_batch(engine, both):
    x = 100 * torch.randn(3, 1, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    network = EngineNetwork([both[1] / "fold_1" / NETWORK], engine, shape=(1, 1, 8, 32, 32))
    assert torch.equal(network(x), torch.cat([network(one) for one in x.split(1)]))


@pytest.mark.oracle
@pytest.mark.parametrize("engine", FLOAT32)
def test_a_damaged_network_is_one_message(engine, both, tmp_path):
    whole = (both[1] / "fold_0" / NETWORK).read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half.onnx cannot be opened: .*\n  Export the model again."):
        EngineNetwork([tmp_path / "half.onnx"], engine, shape=(1, 1, 8, 32, 32))
    with pytest.raises(UserError, match=r"its input is \(1, 1, 8, 32, 32\), not \(1, 1, 8, 8, 8\)"):
        EngineNetwork([both[1] / "fold_0" / NETWORK], engine, shape=(1, 1, 8, 8, 8))


@pytest.mark.oracle
def test_openvino_tells_its_makers_nothing(extras):
    code = (
        "from nnunet_livseg.inference.engines import openvino_core; openvino_core()\n"
        "from openvino.tools.ovc.telemetry_utils import tm\n"
        "assert tm.__name__.endswith('telemetry_stub'), tm"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.oracle
def test_bfloat16_rounds_and_the_result_names_it(both):
    if not engines.is_usable(engines.BFLOAT16):
        with pytest.raises(UserError, match=r"openvino .* does not compute in bfloat16 on this processor"):
            segment(as_image(drawing()[0]), both[1], engine=engines.BFLOAT16)
        return
    found = segment(as_image(drawing()[0]), both[1], engine=engines.BFLOAT16)
    assert found.provenance.settings["engine"].endswith(", bfloat16")
    parity = json.loads((both[1] / RECORD).read_text())["parity"]["0"][engines.BFLOAT16]["random"]
    assert 1e-4 < parity["largest_difference"] / parity["largest_logit"] < 1e-2
