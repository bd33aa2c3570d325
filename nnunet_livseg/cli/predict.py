"""predict with nnU-Net's nnUNetv2_predict, at several scales if you ask for them

All other arguments are those of nnUNetv2_predict (nnUNetv2_predict -h), or of nnUNetv2_predict_from_modelfolder if
-m names a model folder. Without --scales this is nnU-Net's own prediction.

--scales resizes the preprocessed image in plane, predicts it at every size and averages the probabilities, as SFAN
does with 0.5, 1 and 1.5. It takes about the sum of the squared scales times as long: 3.5 times for these.

example:
  livseg predict --scales 0.5 1 1.5 -i IMAGES -o OUT -d 3 -c 2d -tr SFANTrainer -p SFANPlans -f 0
"""

import argparse
import sys
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from nnunet_livseg.cli.shared_options import add

STEP = "predict"
PASSES_ON = True
_NAMES = {"-d": None, "-c": None, "-tr": "nnUNetTrainer", "-p": "nnUNetPlans"}  # what names a training, and defaults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg predict`` that are not nnU-Net's."""
    add(parser, "scales", default=[1.0], says="1, nnU-Net's own")


def run(args: argparse.Namespace) -> None:
    """Run nnU-Net's own command in this process."""
    from nnunetv2.inference import predict_from_raw_data

    from nnunet_livseg.inference.image_folder import without_hidden_files
    from nnunet_livseg.inference.trained_model import load_error
    from nnunet_livseg.multiscale import multiscale_prediction, replaced

    options, models = _checked(args.passed_on)
    by_folder = "-m" in args.passed_on
    command = predict_from_raw_data.predict_entry_point_modelfolder if by_folder else None
    command = command or predict_from_raw_data.predict_entry_point
    with ExitStack() as stack:
        for images in _values(options, "-i"):
            options[options.index("-i") + 1] = str(stack.enter_context(without_hidden_files(Path(images))))
        stack.enter_context(multiscale_prediction(args.scales))
        stack.enter_context(replaced(sys, "argv", ["livseg predict", *options]))
        try:
            command()
        except (ImportError, RuntimeError) as error:
            if not models or ("state_dict" not in str(error) and not isinstance(error, ImportError)):
                raise
            raise load_error(models[0], error) from error


def _checked(options: list[str]) -> tuple[list[str], list]:
    """nnU-Net's options with the best device that is here where none is named, and the model that they name.

    Raises:
        UserError: Images, model, folds or device are not there; nnU-Net itself would make folders first.
    """
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.inference.devices import best_device, require_device
    from nnunet_livseg.inference.image_folder import require_images
    from nnunet_livseg.inference.trained_model import CHECKPOINT, TrainedModel

    if {"-h", "--help"} & set(options):
        return options, []
    models = []
    for images in _values(options, "-i"):
        if not Path(images).is_dir():
            raise UserError(f"there is no folder {images}.\n  -i takes a folder of images named CASE_0000.nii.gz.")
    checkpoint = next(iter(_values(options, "-chk")), CHECKPOINT)
    for folder in _values(options, "-m") or _trained(options):
        model = TrainedModel.open(folder, folds=tuple(_values(options, "-f")), checkpoint=checkpoint)
        for images in _values(options, "-i"):
            require_images(Path(images), model.dataset)
        models.append(model)
    for device in _values(options, "-device"):
        require_device(device)
    return (options if "-device" in options else [*options, "-device", best_device()]), models


def _trained(options: list[str]) -> list[str]:
    """The model's folder where dataset and configuration name it; none where nnU-Net's own parser has to complain."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.nnunet_folders import find_dataset

    given = {name: next(iter(_values(options, name)), default) for name, default in _NAMES.items()}
    if None in given.values():
        return []
    try:
        trainings = find_dataset(given["-d"], "nnUNet_results")
    except UserError:  # nnU-Net says which variable or dataset is missing
        return []
    return [str(trainings / f"{given['-tr']}__{given['-p']}__{given['-c']}")]


def _values(options: list[str], name: str) -> list[str]:
    """What stands behind an option; argparse would take nnU-Net's -d for a short -device."""
    behind = options[options.index(name) + 1 :] if name in options else []
    return list(takewhile(lambda text: not text.startswith("-"), behind))
