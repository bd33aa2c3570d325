"""Strong networks for medical images in general, to compare with under the same recipes and plans.

nnU-Net's own presets with a residual encoder need no row: docs/papers/rivals.md.
"""

from nnunet_livseg.recipes import Recipe
from nnunet_livseg.rows.schema import Paper, Preset, Variant

MEDNEXT_2023 = Paper(
    "mednext",
    "Roy S. et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation, MICCAI 2023",
    "docs/papers/rivals.md",
    rival=True,
)
RECIPE = Recipe(
    optimizer="adamw",
    optimizer_options={"eps": 1e-4},  # of the authors' trainer, where float16 would divide by 0
    learning_rate=1e-3,
    weight_decay=3e-5,
    schedule="constant",
)
_GEOMETRY = {
    "configuration": "3d_fullres",
    "spacing_mm": (1.0, 1.0, 1.0),
    "patch": (128, 128, 128),
    "batch": 2,
    "features": (32, 64, 128, 256, 512),
}
_PRESETS = {
    f"{size}{kernel}": Preset(options={"size": size.upper(), "kernel_size": kernel}, **_GEOMETRY)
    for size in "sbml"
    for kernel in (3, 5)
}

ROWS = (
    Variant(
        "mednext",
        "MedNeXtTrainer",
        "nnunet_livseg.networks.mednext.MedNeXt",
        MEDNEXT_2023,
        "MedNeXt-S, kernel 3; the presets are its other sizes and kernels",
        recipe=RECIPE,
        presets=_PRESETS,
        extra="monai",
        note="needs MONAI: the extra monai",
    ),
)
