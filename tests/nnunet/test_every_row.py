"""Every row of the table trains, continues, validates and predicts through the functions behind nnU-Net's commands.

The commands themselves are in test_commands.py for one row; here one process runs all rows, because starting a process
takes longer than these trainings.
"""

import json

from nnunet_livseg.data.phantom import write_dataset
from nnunet_livseg.variants import VARIANTS

SIZE, SPACING_MM = (16, 32, 32), (14.0, 10.0, 10.0)

SCRIPT = """
import json, sys, torch
from pathlib import Path
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunet_livseg.variants import VARIANTS

dataset, images, out = sys.argv[1:4]
plans_file = Path(sys.argv[4])
for variant in VARIANTS:
    configuration = "2d" if 2 in variant.dims else "3d_fullres"
    for epochs in (1, 2):  # the second time it continues
        plans = json.loads(plans_file.read_text())
        for entries in plans["configurations"].values():
            entries["livseg"]["recipe"]["epochs"] = epochs
        plans_file.write_text(json.dumps(plans))
        arguments = (dataset, configuration, 0, variant.trainer, "nnUNetPlans")
        trainer = get_trainer_from_args(*arguments, continue_training=epochs == 2, device=torch.device("cpu"))
        maybe_load_checkpoint(trainer, epochs == 2, False)
        trainer.run_training()
    assert trainer.current_epoch == 2, variant.name
    predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
    Path(out, variant.name).mkdir(parents=True)
    predictor.predict_from_files_sequential(images, f"{out}/{variant.name}")
    print("trained and predicted:", variant.name, flush=True)
"""


def test_every_row(workplace, narrow_networks, tmp_path):
    """Two phases, because some rows need them; few workers and one epoch at a time keep it short."""
    dataset = "Dataset904_Rows"
    write_dataset(
        workplace.raw / dataset, cases=3, test_cases=1, size=SIZE, spacing_mm=SPACING_MM, phases=2, progress=False
    )
    workplace.quick("nnUNetv2_plan_and_preprocess", "-d", 904, "-c", "2d", "3d_fullres", "-np", 1, "-npfp", 1)
    workplace.shorten(dataset, iterations=1)
    splits = [{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}]
    (workplace.preprocessed / dataset / "splits_final.json").write_text(json.dumps(splits))
    plans = workplace.preprocessed / dataset / "nnUNetPlans.json"
    images = workplace.raw / dataset / "imagesTs"
    said = workplace.quick("python", "-c", SCRIPT, dataset, images, tmp_path / "out", plans)
    for variant in VARIANTS:
        assert f"trained and predicted: {variant.name}\n" in said
        assert len(list((tmp_path / "out" / variant.name).glob("*.nii.gz"))) == 1
