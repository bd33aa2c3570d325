"""The one trainer class: bad steps, atomic checkpoints, wrappers, and nnU-Net's contract."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.losses import target_strides
from nnunet_livseg.plans import Overrides, make_plans
from nnunet_livseg.reference_networks import stock_configuration
from nnunet_livseg.trainers import MAX_BAD_STEPS, TRAINERS, LivSegTrainer
from nnunet_livseg.training.augmentation import (
    Contrast,
    CutFieldOfView,
    ExtrahepaticMass,
    OralContrast,
    ScannerNoise,
    SyntheticTumors,
    ThickSlices,
)
from nnunet_livseg.variants import find_variant

from .conftest import dataset_json, make
from .conftest import plans as tiny_plans

DATASET_JSON = {
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "channel_names": {"0": "CT"},
    "file_ending": ".nii.gz",
}


def plans(dim=2, **recipe):
    configuration = stock_configuration(dim, patch=(32,) * dim, features=(4, 6, 8, 8))
    configuration |= {"data_identifier": "x", "batch_dice": False, "preprocessor_name": "DefaultPreprocessor"}
    configuration["livseg"] = {"recipe": recipe}
    return {
        "dataset_name": "Dataset901_Phantom",
        "plans_name": "nnUNetPlans",
        "configurations": {"2d": configuration},
        "label_manager": "LabelManager",
        "continue_training": False,
    }


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """A trainer with network, loss and optimizer, without a dataset on disk."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))

    def make(trainer="DPCNetTrainer", **recipe):
        made = TRAINERS[trainer](plans(**recipe), "2d", 0, DATASET_JSON, torch.device("cpu"))
        made.network = made.build_network_architecture(made.plans_manager, made.configuration_manager, 1, 3)
        made.optimizer, made.lr_scheduler = made.configure_optimizers()
        made.loss = made._build_loss()
        made.was_initialized = True
        return made

    return make


def batch_for(trainer, size=32, value=None):
    data = torch.randn(2, 1, size, size) if value is None else torch.full((2, 1, size, size), value)
    label = torch.randint(0, 3, (2, 1, size, size))
    strides = target_strides(trainer.bare_network().training_outputs())
    target = [label[..., :: stride[0], :: stride[1]] for stride in strides]
    return {"data": data, "target": target, "keys": ["case_1", "case_7"]}


def log_of(trainer):
    from pathlib import Path

    return Path(trainer.log_file).read_text()


def test_signatures_are_those_that_nnunet_reads():
    """nnU-Net inspects both; a change upstream must be seen here."""
    theirs = inspect.signature(nnUNetTrainer.__init__)
    assert list(inspect.signature(LivSegTrainer.__init__).parameters) == list(theirs.parameters)
    theirs = inspect.signature(nnUNetTrainer.build_network_architecture)
    assert list(inspect.signature(LivSegTrainer.build_network_architecture).parameters) == list(theirs.parameters)


def test_the_recipe_in_the_plans_is_used(make_trainer):
    trainer = make_trainer(epochs=7, iterations=11, validation_iterations=3, foreground=0.5, learning_rate=0.5)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (7, 11, 3)
    assert (trainer.oversample_foreground_percent, trainer.initial_lr) == (0.5, 0.5)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5


def test_mirroring_is_nnunets_unless_the_recipe_switches_it_off(make_trainer):
    for recipe, axes in (({}, (0, 1)), ({"mirror": False}, None)):
        trainer = make_trainer(**recipe)
        *_, mirrored = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert mirrored == axes
        assert trainer.inference_allowed_mirroring_axes == axes  # what the checkpoint tells prediction


def test_augmentation_is_nnunets_unless_the_recipe_asks_for_more(make_trainer):
    found = {}
    for name, recipe in {"nnunet": {}, "ct": {"augmentation": "ct"}, "tumors": {"synthetic_tumors": 0.25}}.items():
        trainer = make_trainer(**recipe)
        trainer.configuration_manager.configuration |= {"normalization_schemes": ["CTNormalization"], "spacing": [2, 2]}
        hu = {"mean": -40.0, "std": 50.0, "percentile_00_5": -40.0, "percentile_99_5": 160.0}
        trainer.plans_manager.plans["foreground_intensity_properties_per_channel"] = {"0": hu}
        make = trainer._with_recipe(trainer.get_training_transforms)
        found[name] = make((16, 16), (-0.5, 0.5), None, None, False).transforms
    ours = [type(step.transform) for step in found["ct"][1 : len(found["ct"]) - len(found["nnunet"]) + 1]]
    assert ours == [OralContrast, ExtrahepaticMass, ThickSlices, Contrast, ScannerNoise, CutFieldOfView]
    noise = next(t.transform for t in found["ct"] if "ScannerNoise" in repr(t))
    assert (noise.window.low, noise.window.high, noise.window.per_hu) == (0, 4, 0.02)
    assert len(found["tumors"]) == len(found["nnunet"]) + 1
    assert found["tumors"][1].apply_probability == 0.25
    assert isinstance(found["tumors"][1].transform, SyntheticTumors)
    with pytest.raises(UserError, match="augmentation 'none' is unknown; known: nnunet, ct"):
        make_trainer(augmentation="none")
    with pytest.raises(UserError, match="synthetic_tumors is 5, but must be from 0 to 1"):
        make_trainer(synthetic_tumors=5)


def test_a_training_step_learns(make_trainer):
    trainer = make_trainer(optimizer="adam", optimizer_options={}, learning_rate=1e-2, schedule="constant")
    batch = batch_for(trainer)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(15)]
    assert losses[-1] < losses[0] - 0.1


def test_a_bad_step_changes_nothing_and_is_logged(make_trainer):
    trainer = make_trainer()
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    bad = trainer.train_step(batch_for(trainer, value=float("nan")))
    torch.testing.assert_close(trainer.network.state_dict(), before)
    assert "Step skipped: loss or gradient is not finite (cases case_1, case_7)" in log_of(trainer)
    good = trainer.train_step(batch_for(trainer))
    trainer.on_train_epoch_end([bad, good])
    assert trainer.logger.get_value("train_losses", step=0) == pytest.approx(float(good["loss"]))


def test_bad_steps_in_a_row_end_the_training(make_trainer):
    trainer = make_trainer()
    for _ in range(MAX_BAD_STEPS - 1):
        trainer.train_step(batch_for(trainer, value=float("inf")))
    trainer.train_step(batch_for(trainer))  # a good one in between starts the count anew
    for _ in range(MAX_BAD_STEPS - 1):
        trainer.train_step(batch_for(trainer, value=float("inf")))
    with pytest.raises(UserError, match=r"10 training steps in a row had no finite loss.*case_7.*\n.*livseg check"):
        trainer.train_step(batch_for(trainer, value=float("inf")))


def fill_log(trainer, epochs):
    for epoch in range(epochs):
        for key in (
            "mean_fg_dice",
            "train_losses",
            "val_losses",
            "lrs",
            "epoch_start_timestamps",
            "epoch_end_timestamps",
        ):
            trainer.logger.log(key, 1.0, epoch)
        trainer.logger.log("dice_per_class_or_region", [1.0, 1.0], epoch)


def test_a_full_disk_leaves_the_previous_checkpoint(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer()
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def fill_up(content, filename, **kwargs):
        with open(filename, "wb") as file:  # noqa: PTH123
            file.write(b"half a checkpoint")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(
        UserError, match=r"checkpoint_latest.pth could not be written: .*\n.*previous checkpoint is untouched"
    ):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".incomplete-*"))


def test_checkpoints_of_compiled_and_plain_networks_are_the_same(make_trainer, tmp_path):
    plain, compiled = make_trainer(), make_trainer()
    compiled.network = torch.compile(compiled.network, backend="eager")
    compiled.network(torch.randn(2, 1, 32, 32))
    for source, goal in ((compiled, plain), (plain, compiled)):
        with torch.no_grad():
            next(source.bare_network().parameters()).add_(1)
        source.save_checkpoint(str(tmp_path / "checkpoint.pth"))
        goal.load_checkpoint(str(tmp_path / "checkpoint.pth"))
        torch.testing.assert_close(goal.bare_network().state_dict(), source.bare_network().state_dict())


@pytest.mark.parametrize(
    ("change", "recipe", "message"),
    [
        (
            lambda c: c["network_weights"].popitem(),
            {},
            "has another network (.|\\n)*restore its plans(.|\\n)*omit --c",
        ),
        (lambda c: None, {"optimizer": "sgd"}, "has another optimizer than the plans"),
        (lambda c: c["optimizer_state"]["param_groups"].clear(), {}, "has another optimizer than the plans"),
        (lambda c: c.pop("network_weights"), {}, r"is damaged, or is not a checkpoint of this trainer \(KeyError"),
        (None, {}, "is damaged, or is not a checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_message(make_trainer, tmp_path, change, recipe, message):
    path = tmp_path / "checkpoint.pth"
    make_trainer().save_checkpoint(str(path))
    if change is None:
        path.write_bytes(path.read_bytes()[:1000])
    else:
        content = torch.load(path, weights_only=False)
        change(content)
        torch.save(content, path)
    with pytest.raises(UserError, match=f"checkpoint.pth {message}"):
        make_trainer(**recipe).load_checkpoint(str(path))


def test_the_first_process_of_another_node_writes_no_checkpoint(make_trainer, tmp_path, monkeypatch):
    """nnU-Net's branch for several nodes asks ``global_rank``; ``local_rank`` is 0 on every node there."""
    trainer = make_trainer()
    trainer.global_rank = 1
    monkeypatch.setattr(nnUNetTrainer, "save_checkpoint", lambda self, filename: None)
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert not list(tmp_path.glob("*.pth"))


def test_continuing_does_not_need_the_initial_weights_any_more(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    other = make_trainer(init=str(tmp_path / "gone.pth"))
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    other._load_initial_weights()  # what the start of a training calls
    fresh = make_trainer(init=str(tmp_path / "gone.pth"))
    with pytest.raises(UserError, match=r"there is no checkpoint .*gone.pth"):
        fresh._load_initial_weights()


def test_the_latest_checkpoint_is_never_older_than_the_recipe_says(make_trainer, monkeypatch):
    saved = []
    for minutes, expected in ((0, ["checkpoint_latest.pth"]), (60, [])):
        trainer = make_trainer(checkpoint_minutes=minutes, epochs=10)
        fill_log(trainer, 1)
        trainer._best_ema = np.inf  # no best checkpoint now
        monkeypatch.setattr(trainer, "save_checkpoint", lambda name: saved.append(name.rsplit("/", 1)[1]))
        trainer.on_epoch_end()
        assert saved == expected
        saved.clear()


def test_early_stopping_ends_as_a_whole_training_does(make_trainer, monkeypatch):
    trainer = make_trainer(stop_after=2, epochs=50)
    trainer.current_epoch = 2
    ended = []

    def train(self):
        fill_log(self, 3)  # the validation loss never improves after the first
        self.on_epoch_end()

    monkeypatch.setattr(trainer, "save_checkpoint", lambda name: None)
    monkeypatch.setattr(trainer, "on_train_end", lambda: ended.append(trainer.current_epoch))
    monkeypatch.setattr(nnUNetTrainer, "run_training", train)
    trainer.run_training()
    assert ended == [3]
    assert "No better validation loss for 2 epochs: training ends here" in log_of(trainer)
    ended.clear()
    monkeypatch.setattr(nnUNetTrainer, "run_training", lambda self: pytest.fail("trained on"))
    trainer.run_training()  # as --c does with the checkpoint of the end
    assert ended == [3]


@pytest.mark.parametrize(
    "labels", [{"background": 0, "liver": [1, 2], "tumor": 2}, {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}]
)
def test_validation_works_with_regions_and_ignore_label(make_trainer, labels):
    DATASET = {**DATASET_JSON, "labels": labels, "regions_class_order": [1, 2]}
    trainer = TRAINERS["DPCNetTrainer"](plans(), "2d", 0, DATASET, torch.device("cpu"))
    heads = trainer.label_manager.num_segmentation_heads
    trainer.network = trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, heads)
    trainer.loss = trainer._build_loss()
    batch = batch_for(trainer)
    if trainer.label_manager.has_regions:
        batch["target"] = [torch.cat([t > 0, t == 2], 1) for t in batch["target"]]
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


DDP_STEP = """
import os, sys, torch, torch.distributed as dist
from pydoc import locate
from torch.nn.parallel import DistributedDataParallel as DDP
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.reference_networks import build, stock_configuration
from nnunet_livseg.variants import VARIANTS, is_installed
from nnunetv2.utilities.label_handling.label_handling import LabelManager

torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=sys.argv[2], rank=int(sys.argv[1]), world_size=2)
labels = LabelManager({"background": 0, "liver": 1, "tumor": 2}, None)
for variant in filter(is_installed, VARIANTS):
    torch.manual_seed(0)
    widths = locate(variant.network).__init__.__kwdefaults__
    widths |= {"width": 8} if "width" in widths else {}  # whatever the plans say
    configuration = stock_configuration(min(variant.dims), patch=(32, 32), features=(4, 6, 8, 10))
    bare = build(configuration, variant, channels=2)
    outputs = bare.training_outputs()
    loss = MultiOutputLoss(LOSSES[variant.loss](labels, True, True), outputs)
    network = DDP(bare)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    torch.manual_seed(dist.get_rank())
    for step in range(2):  # DDP finds a parameter without a gradient at the next forward pass
        label = torch.randint(0, 3, (2, 1, 32, 32))
        targets = [label[..., :: s[0], :: s[1]] for s in target_strides(outputs)]
        optimizer.zero_grad()
        loss(network(torch.randn(2, 2, 32, 32)), targets).backward()
        optimizer.step()
    first = next(bare.parameters()).detach().flatten()[:8].clone()
    others = [torch.zeros_like(first) for _ in range(2)]
    dist.all_gather(others, first)
    assert torch.equal(*others), variant.name
dist.destroy_process_group()  # else its threads may still run at the end, which aborts the process
print("all", len(VARIANTS), "done")
"""


@pytest.mark.slow
def test_two_ddp_processes_train_every_row(tmp_path):
    meeting = f"file://{tmp_path / 'meeting'}"
    command = [sys.executable, "-W", "ignore", "-c", DDP_STEP]
    processes = [
        subprocess.Popen([*command, str(rank), meeting], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said[-3000:]
        assert "done" in said


def test_plans_as_a_file_holds_them_are_enough(make_trainer):
    """JSON has no tuples: a trainer must accept what comes back from a plans file."""
    content = json.loads(json.dumps(plans()))
    TRAINERS["DPCNetTrainer"](content, "2d", 0, DATASET_JSON, torch.device("cpu"))


@pytest.mark.parametrize("own_plans", [False, True], ids=["stock plans", "plans of ours"])
def test_channels_come_from_the_dataset_and_not_from_the_plans(place, own_plans):
    """As in nnU-Net, where plans can be moved to a dataset with fewer channels; prediction only has the plans."""
    content, variant = tiny_plans(channels=3), find_variant("sam-urim")
    configuration = stock_configuration(3, patch=(32,) * 3, features=(4, 6, 8, 10, 12))
    content["configurations"]["3d_fullres"] |= {key: configuration[key] for key in ("patch_size", "architecture")}
    if own_plans:
        del content["configurations"]["2d"]
        content = make_plans(content, variant, preset="default", name="Moved", overrides=Overrides())
    described = dataset_json(channels=2)
    trainer = make(TRAINERS[variant.trainer], content, described=described, configuration="3d_fullres")
    of_the_model = PlansManager(json.loads(json.dumps(trainer.plans_manager.plans)))
    for plans in (trainer.plans_manager, of_the_model):
        network = trainer.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 2, 3, False)
        assert (network.channels.image, network.phases) == (2, 2)
    back = make(
        TRAINERS[variant.trainer],
        of_the_model.plans,
        described=dataset_json(channels=3),
        configuration="3d_fullres",
    )
    plans = back.plans_manager
    assert back.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 3, 3, False).phases == 3
