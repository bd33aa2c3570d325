"""Table of MFCNet: Pang et al., "Correlation Matters: Multi-scale Fine-Grained Contextual Information ...", PAKDD
2020."""

from nnunet_livseg.evaluation.paper_table import Column, PaperTable, rows_of

TABLES = (
    PaperTable(
        "mfcnet-1",
        "MFCNet (Pang et al., PAKDD 2020), its results table",
        (
            Column("Dice [%]", "slices.tumor.dice", 100),
            Column("HD [px]", "slices.tumor.hd"),
            Column("Jaccard [%]", "slices.tumor.jaccard", 100),
            Column("Precision [%]", "slices.tumor.precision", 100),
            Column("Recall [%]", "slices.tumor.recall", 100),
            Column("Specificity [%]", "slices.tumor.specificity", 100),
            Column("F1 [%]", "slices.tumor.f1", 100),
        ),
        rows_of("""
U-Net | 73.62 | 52.65 | 63.67 | 67.46 | 86.70 | 99.76 | 75.88
Attention UNet | 78.70 | 37.13 | 69.32 | 72.93 | 89.65 | 99.83 | 80.43
R2U-Net | 74.55 | 46.04 | 64.46 | 68.38 | 87.27 | 99.77 | 76.68
Nested UNet | 73.58 | 46.89 | 63.55 | 67.39 | 86.95 | 99.76 | 75.93
CE-Net | 78.41 | 33.78 | 69.09 | 72.92 | 89.33 | 99.82 | 80.30
SENet | 77.88 | 39.09 | 68.55 | 72.39 | 89.16 | 99.82 | 79.90
Self-attention | 76.49 | 38.78 | 66.80 | 70.82 | 88.72 | 99.79 | 78.76
DANet | 79.97 | 30.94 | 71.00 | 74.50 | 90.38 | 99.84 | 81.67
CS-Net | 78.90 | 32.90 | 69.45 | 73.03 | 90.03 | 99.83 | 80.64
MFCNet | 82.16 | 30.01 | 73.46 | 76.96 | 91.18 | 99.86 | 83.37
"""),
        (
            "The paper's rows: means over axial slices that contain tumor, distances in pixels, F1 of mean precision",
            "and recall. Ours likewise: --slices cuts volumes into slices, images (PNG) are slices already.",
        ),
    ),
)
