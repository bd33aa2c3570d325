"""Plans: what is changed, what stays, and what is refused, with nothing written."""

import json
import re

import pytest
import torch

from nnunet_livseg.cli import main
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.planning import plans_file
from nnunet_livseg.plans import STOCK_UNETS, Overrides, make_plans, plans_name, training_setup
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.rows.schema import Preset, Variant
from nnunet_livseg.variants import OWN, VARIANTS, find_variant, is_installed


@pytest.fixture
def stock():
    """Plans as nnU-Net writes them for LiTS: 2D, two 3D resolutions and the cascade."""
    common = {"median_image_size_in_voxels": [300, 500, 500], "batch_dice": False}
    plans = {
        name: stock_configuration(3) | common | {"data_identifier": f"nnUNetPlans_{name}"}
        for name in ("3d_fullres", "3d_lowres")
    }
    plans["2d"] = stock_configuration(2) | common | {"data_identifier": "nnUNetPlans_2d"}
    plans["2d"]["median_image_size_in_voxels"] = [500, 500]
    plans["3d_lowres"]["next_stage"] = "3d_cascade_fullres"
    plans["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {
        "dataset_name": "Dataset003_Liver",
        "plans_name": "nnUNetPlans",
        "configurations": plans,
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 99.5, "std": 39.4, "percentile_00_5": -15.0, "percentile_99_5": 197.0}
        },
    }


@pytest.fixture
def dataset(stock, tmp_path, monkeypatch):
    """A dataset folder with these plans in it."""
    folder = tmp_path / "Dataset003_Liver"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(stock))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return folder


@pytest.mark.parametrize("variant", [row for row in VARIANTS if is_installed(row)], ids=lambda variant: variant.name)
def test_every_variant_and_preset_makes_plans_that_build(variant, stock):
    for preset in ("default", *variant.presets):
        plans = make_plans(stock, variant, preset=preset, name="P", overrides=Overrides())
        for configuration in plans["configurations"].values():
            if "architecture" in configuration:
                with torch.device("meta"):
                    build(configuration, initialize=False)
                assert training_setup(variant, configuration).recipe.epochs >= 1


def test_default_plans_change_only_network_and_recipe(stock):
    plans = make_plans(stock, find_variant("dpcnet"), preset="default", name="DPCNetPlans", overrides=Overrides())
    assert list(plans["configurations"]) == list(stock["configurations"])
    for name, configuration in plans["configurations"].items():
        configuration.pop("livseg", None)
        if "architecture" in configuration:
            assert configuration["architecture"].pop("network_class_name") == find_variant("dpcnet").network
            stock["configurations"][name]["architecture"].pop("network_class_name")
        assert configuration == stock["configurations"][name]


def test_paper_preset_has_the_papers_numbers(stock):
    plans = make_plans(stock, find_variant("dpcnet"), preset="paper", name="P", overrides=Overrides())
    (configuration,) = plans["configurations"].values()
    assert configuration["spacing"] == [2.47, 1.90, 1.90]
    assert configuration["patch_size"] == [128, 128, 128]
    assert configuration["batch_size"] == 2
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert configuration["data_identifier"] == "P_3d_fullres"
    assert configuration["livseg"]["loss"] == "pooled_dice_ce"
    recipe = configuration["livseg"]["recipe"]
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["epochs"]) == ("adam", 1e-4, 1000)


def test_starter_preset_is_small_and_black_outside_the_window(stock):
    for variant in ("dpcnet", "dpcnet-unet"):
        plans = make_plans(stock, find_variant(variant), preset="starter", name="P", overrides=Overrides())
        (configuration,) = plans["configurations"].values()
        weights = sum(parameter.numel() for parameter in build(configuration, initialize=False).parameters())
        assert weights * 2 < 2.5e6  # bytes in float16
        assert configuration["livseg"]["recipe"]["mirror"] is False
        hu = plans["foreground_intensity_properties_per_channel"]["0"]
        assert (hu["percentile_00_5"] - hu["mean"]) / hu["std"] == 0  # nnU-Net pads with 0


def test_nnunet_recipe_is_nnunets(stock):
    plans = make_plans(
        stock, find_variant("dpcnet"), preset="default", name="P", overrides=Overrides(recipe="nnunet", epochs=7)
    )
    recipe = plans["configurations"]["2d"]["livseg"]["recipe"]
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["schedule"], recipe["epochs"]) == (
        "sgd",
        1e-2,
        "poly",
        7,
    )


def test_a_loss_that_is_asked_for_comes_before_the_presets_and_the_rows(stock):
    for variant, preset, loss in (("dpcnet", "paper", "dice_ce"), ("sfan", "default", "ce")):
        row, overrides = find_variant(variant), Overrides(loss=loss)
        plans = make_plans(stock, row, preset=preset, name="P", overrides=overrides)
        assert {training_setup(row, c).loss for c in plans["configurations"].values() if "livseg" in c} == {loss}


def test_a_patch_gets_nnunets_geometry(stock):
    overrides = Overrides(patch=(40, 80, 96), spacing_mm=(4.0, 2.0, 2.0), configurations=("3d_fullres",))
    plans = make_plans(stock, find_variant("dpcnet"), preset="default", name="P", overrides=overrides)
    configuration = plans["configurations"]["3d_fullres"]
    kwargs = configuration["architecture"]["arch_kwargs"]
    assert configuration["patch_size"] == [40, 80, 96]
    assert kwargs["strides"][1] == [1, 2, 2]  # thick slices are not pooled first
    assert (
        len(kwargs["strides"]) == len(kwargs["kernel_sizes"]) == kwargs["n_stages"] == len(kwargs["features_per_stage"])
    )
    assert "next_stage" not in configuration


def test_features_fix_widths_and_stages(stock):
    for variant, preset in (("dpcnet", "default"), ("sfan", "paper")):  # before the stock plans' and the preset's
        overrides = Overrides(features=(8, 16, 24, 32), configurations=("3d_fullres",))
        plans = make_plans(stock, find_variant(variant), preset=preset, name="P", overrides=overrides)
        kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        assert kwargs["features_per_stage"] == [8, 16, 24, 32]
        per_stage = [kwargs[key] for key in ("strides", "kernel_sizes", "n_conv_per_stage")]
        assert {kwargs["n_stages"], *map(len, per_stage), len(kwargs["n_conv_per_stage_decoder"]) + 1} == {4}
        network = build(plans["configurations"]["3d_fullres"], initialize=False)
        widths = [stage[-1].convs[-1].conv.out_channels for stage in network.encoder.stages]
        assert widths == [8, 16, 24, 32]


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 1.0)])
def test_a_hu_window_is_plans(stock, ends):
    row = Variant(
        "w",
        "WTrainer",
        find_variant("dpcnet").network,
        find_variant("dpcnet").paper,
        "-",
        presets={"w": Preset(window_hu=(-75.0, 175.0), window_to=ends)},
    )
    plans = make_plans(stock, row, preset="w", name="P", overrides=Overrides())
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (properties["percentile_00_5"], properties["percentile_99_5"]) == (-75, 175)
    assert ((-75 - properties["mean"]) / properties["std"], (175 - properties["mean"]) / properties["std"]) == ends
    assert plans["configurations"]["2d"]["data_identifier"] == "P_2d"
    for configuration in stock["configurations"].values():  # what nnU-Net does with channels that are not called CT
        configuration["normalization_schemes"] = ["ZScoreNormalization"]
    with pytest.raises(UserError, match=r"clips to -75..175 HU, but the plans normalize by ZScoreNormalization"):
        make_plans(stock, row, preset="w", name="P", overrides=Overrides())


def test_stock_plans_need_nothing(stock):
    found = training_setup(find_variant("dpcnet-semcor"), stock["configurations"]["3d_fullres"])
    assert found.architecture["arch_kwargs"]["spacor"] is None
    assert found.recipe == find_variant("dpcnet-semcor").recipe
    stock["configurations"]["3d_fullres"]["livseg"] = {"recipe": {"epochs": 3}}  # the rest stays the row's
    found = training_setup(find_variant("dpcnet-semcor"), stock["configurations"]["3d_fullres"])
    assert found.recipe == find_variant("dpcnet-semcor").recipe.replace(epochs=3)


def test_another_variants_plans_are_refused(stock):
    plans = make_plans(stock, find_variant("dpcnet-ag"), preset="default", name="P", overrides=Overrides())
    with pytest.raises(
        UserError, match=r"hold the variant dpcnet-ag, but trainer DPCNetTrainer.*\n.*-tr DPCNetAGTrainer"
    ):
        training_setup(find_variant("dpcnet"), plans["configurations"]["2d"])
    stranger = stock_configuration(3)
    stranger["architecture"]["network_class_name"] = "some.other.Network"
    with pytest.raises(UserError, match=r"hold the network some\.other\.Network, but trainer DPCNetTrainer"):
        training_setup(find_variant("dpcnet"), stranger)


def test_a_2d_only_variant_is_refused_in_3d(stock):
    row = Variant("flat", "FlatTrainer", STOCK_UNETS[0], find_variant("dpcnet").paper, "-", dims=(2,))
    with pytest.raises(UserError, match="FlatTrainer exists in 2D only, but this configuration is 3D"):
        training_setup(row, stock["configurations"]["3d_fullres"])
    with pytest.raises(UserError, match="flat exists in 2D only"):
        make_plans(stock, row, preset="default", name="P", overrides=Overrides(configurations=("3d_fullres",)))
    assert list(make_plans(stock, row, preset="default", name="P", overrides=Overrides())["configurations"]) == ["2d"]


# --- livseg plan ------------------------------------------------------------------------------------------------------


def plan(*args):
    return main(["plan", "-d", "3", *args])


def test_writes_once_and_touches_nothing_else(dataset, capsys):
    before = (dataset / "nnUNetPlans.json").read_bytes()
    assert plan("-m", "dpcnet") == 0
    written = (dataset / "DPCNetPlans.json").read_bytes()
    said = capsys.readouterr().out
    assert "nnUNetv2_preprocess -d 3 -plans_name DPCNetPlans -c 3d_fullres 3d_lowres 2d" in said
    assert "nnUNetv2_train 3 3d_fullres 0 -tr DPCNetTrainer -p DPCNetPlans" in said
    modified = (dataset / "DPCNetPlans.json").stat().st_mtime_ns
    assert plan("-m", "DPCNetTrainer") == 0
    assert "unchanged" in capsys.readouterr().out
    assert (dataset / "DPCNetPlans.json").stat().st_mtime_ns == modified
    assert (dataset / "DPCNetPlans.json").read_bytes() == written
    assert (dataset / "nnUNetPlans.json").read_bytes() == before
    assert sorted(path.name for path in dataset.iterdir()) == ["DPCNetPlans.json", "nnUNetPlans.json"]


def test_features_of_an_own_network_that_has_its_own(dataset):
    """The remedy named options of our networks."""
    assert plan("-m", "mfcnet", "-c", "2d") == 0
    content = json.loads((dataset / "MFCNetPlans.json").read_text())
    with pytest.raises(UserError, match=r"your network does not take its channels.*\n.*under the name that its class"):
        plans_file._require_features_are_used(content, OWN)


def test_names_of_plans_are_unique_and_have_no_double_underscore():
    names = [plans_name(row, preset) for row in VARIANTS for preset in ("default", *row.presets)]
    assert len(set(names)) == len(names)
    assert not [name for name in [*names, *(row.trainer for row in VARIANTS)] if "__" in name]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-m", "dcpnet"], r"there is no variant 'dcpnet'. Did you mean dpcnet"),
        (["-m", "DPCNetTrainr"], r"there is no variant 'DPCNetTrainr'. Did you mean DPCNetTrainer"),
        (
            ["-m", "dpcnet", "--preset", "papr"],
            r"has no preset 'papr'; it has default, paper, table4, starter, tumors. Did you mean paper\?",
        ),
        (["-m", "sfan", "--loss", "dce"], r"there is no loss 'dce'; known: dice_ce, ce, .*\. Did you mean .*\bce\b"),
        (["-m", "dpcnet", "--epochs", "0"], r"epochs is 0, but a training needs"),
        (["-m", "dpcnet", "--patch", "64", "64", "64"], r"patch 64 64 64 has 3 numbers, but 2d has 2 axes"),
        (["-m", "dpcnet", "-c", "4d"], r"have no configuration 4d, only"),
        (
            ["-m", "dpcnet", "-p", "OtherPlans"],
            r"there are no plans OtherPlans in .*\n  Plans there: .*nnUNetPlans.*name one with -p, or omit -p",
        ),
        (["-m", "dpcnet", "--option", "semcor=1"], r"cannot be built with --option semcor=1 \(KeyError: 1\)"),
        (["--network", ""], r"--network is empty. Name a class"),
        (["-m", "dpcnet", "--init", "none.pth"], r"there is no checkpoint .*none.pth"),
        (["-m", "dpcnet", "--init", __file__], r"test_plans.py is not a checkpoint"),
        (["-m", "dpcnet", "--batch", "0"], r"--batch 0: sizes must be above 0"),
        (["-m", "dpcnet", "-c", "3d_fullres", "--patch", "0", "64", "64"], r"--patch 0 64 64: sizes must be above 0"),
        (["-m", "dpcnet", "-c", "3d_fullres", "--spacing", "0", "1", "1"], r"--spacing 0.0 1.0 1.0: sizes must be"),
        (["-m", "dpcnet", "-plans_name", "../Elsewhere"], r"plans cannot be called ../Elsewhere: it names a file"),
        (["-m", "dpcnet", "-plans_name", "My__Plans"], r"plans cannot be called My__Plans: nnU-Net splits"),
        (
            ["-m", "dpcnet", "-plans_name", "nnUNetPlans"],
            r"nnUNetPlans.json contains other plans \(nnU-Net default\), which stay",
        ),
        (
            ["-m", "dpcnet", "--preset", "paper", "--patch", "16", "16", "16"],
            r"32 64 128 256 320 320 channels make 6 resolution stages, which do not fit into patch 16",
        ),
        (["-m", "dpcnet", "--features", "8", "0", "8"], r"--features 8 0 8: sizes must be above 0"),
        (["-m", "dpcnet", "--features", "8", "16"], r"DPC-Net needs at least 3 resolution stages, .* have 2"),
        (["-m", "dpcnet", "-c", "2d", "--features", *["8"] * 10], r"10 resolution stages.*\n.*fewer --features"),
        (["-m", "mfcnet", "--features", *["8"] * 5], r"network of mfcnet does not take its channels.*\n.*width=16"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(dataset, capsys, args, message):
    before = (dataset / "nnUNetPlans.json").read_bytes()
    assert plan(*args) == 1
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in dataset.iterdir()] == ["nnUNetPlans.json"]
    assert (dataset / "nnUNetPlans.json").read_bytes() == before


def test_what_the_network_refuses_is_not_written(dataset, stock, capsys):
    """A residual encoder has no pooling to put the paper's convolutions in the place of."""
    for configuration in stock["configurations"].values():
        if "architecture" in configuration:
            architecture = configuration["architecture"]
            architecture["network_class_name"] = STOCK_UNETS[1]
            architecture["arch_kwargs"]["n_blocks_per_stage"] = architecture["arch_kwargs"].pop("n_conv_per_stage")
    (dataset / "ResEncPlans.json").write_text(json.dumps(stock))
    assert plan("-m", "dpcnet", "-p", "ResEncPlans", "--preset", "paper", "-plans_name", "NewPlans") == 1
    assert "has the downsampling 'separate', but a residual encoder has only strided" in capsys.readouterr().err
    assert not (dataset / "NewPlans.json").exists()
    assert plan("-m", "dpcnet", "-p", "ResEncPlans", "-plans_name", "NewPlans") == 0


def test_plans_of_another_variant_stay(dataset, capsys):
    assert plan("-m", "dpcnet", "-plans_name", "MyPlans") == 0
    assert plan("-m", "dpcnet-ag", "-plans_name", "MyPlans") == 1
    assert "MyPlans.json contains other plans (dpcnet default), which stay as they are" in capsys.readouterr().err
    assert plan("-m", "dpcnet-ag", "-p", "MyPlans") == 1
    assert "MyPlans already contains a network of this package" in capsys.readouterr().err


def test_a_dataset_that_is_not_there(dataset, capsys, monkeypatch):
    assert main(["plan", "-d", "Dataset003_Livr", "-m", "dpcnet"]) == 1
    assert "Did you mean Dataset003_Liver?" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_preprocessed")
    assert plan("-m", "dpcnet") == 1
    assert "the environment variable nnUNet_preprocessed is not set" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(dataset, capsys, monkeypatch):
    """Root may write anywhere, so the failure is the system call's own, as on a read-only or full disk."""
    import errno
    import tempfile

    for code, text in ((errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left on device")):

        def fail(*args, code=code, text=text, **kwargs):
            raise OSError(code, text, str(dataset))

        monkeypatch.setattr(tempfile, "mkstemp", fail)
        assert plan("-m", "dpcnet") == 1
        said = capsys.readouterr().err
        assert text in said and "Nothing incomplete was kept" in said
        assert [path.name for path in dataset.iterdir()] == ["nnUNetPlans.json"]
