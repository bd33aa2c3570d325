"""The five papers' tables in their own columns: their printed rows beside ours, marked as quoted.

A table is data: columns that say which of our numbers belongs there, and the rows as printed. ``TABLES`` holds all.
"""

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.evaluation.paper_table import Column, PaperTable, render, rows_of

__all__ = ["TABLES", "Column", "PaperTable", "paper_table", "render"]

# --- Tables of DPC-Net: Zhang et al., "Decoupled Pyramid Correlation Network for Liver Tumor Segmentation",
# Med. Phys. 2022.

_DPCNET_SOURCE = "DPC-Net (Zhang et al., Medical Physics 2022)"
_DPCNET_FOLDS = "The paper's rows: 4-fold cross-validation on the 131 training cases of LiTS, mean±sd over cases."
_DPCNET_ABLATION = (
    Column("tumor DSC [%]", "tumor.dice", 100, sd=True),
    Column("tumor ASSD [mm]", "tumor.assd", sd=True),
    Column("liver DSC [%]", "liver.dice", 100, sd=True),
    Column("liver ASSD [mm]", "liver.assd", sd=True),
)
_DPCNET_TEST = tuple(
    column
    for short, structure in (("T", "tumor"), ("L", "liver"))
    for column in (
        Column(f"{short} DSC [%]", f"{structure}.dice", 100, digits=1),
        Column(f"{short} RVD", f"{structure}.rvd", digits=3),
        Column(f"{short} ASSD [mm]", f"{structure}.assd", digits=3),
        Column(f"{short} HD95 [mm]", f"{structure}.hd95", digits=3),
    )
)

_DPCNET = (
    PaperTable(
        "dpcnet-1",
        f"{_DPCNET_SOURCE}, Table 1 (poolings)",
        _DPCNET_ABLATION,
        rows_of("""
3D U-Net baseline | 51.66±30.29 | 7.83±15.89 | 87.85±8.55 | 5.48±6.67
+SemCor avg | 56.19±29.05 | 7.80±15.78 | 90.21±7.48 | 4.80±5.20
+SemCor max | 55.07±29.06 | 7.77±15.71 | 90.09±7.66 | 4.77±5.31
+SemCor avg+max | 57.10±28.31 | 7.78±14.63 | 91.04±6.83 | 3.99±4.66
+SpaCor avg | 58.02±28.33 | 7.32±15.31 | 91.05±6.60 | 3.89±4.33
+SpaCor max | 57.96±29.01 | 7.27±14.65 | 91.32±6.56 | 3.61±4.45
+SpaCor avg+max | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
"""),
        (_DPCNET_FOLDS, "The SpaCor rows are on top of SemCor avg+max."),
    ),
    PaperTable(
        "dpcnet-2",
        f"{_DPCNET_SOURCE}, Table 2 (modules)",
        _DPCNET_ABLATION,
        rows_of("""
baseline | 51.66±30.29 | 7.83±15.89 | 87.85±8.55 | 5.48±6.67
SpaCor | 55.11±29.88 | 7.26±10.28 | 88.67±8.26 | 5.05±4.46
SemCor | 57.10±28.31 | 7.78±14.63 | 91.04±6.83 | 3.99±4.66
SpaCor + SemCor | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
PFE | 59.89±28.12 | 6.23±12.32 | 92.31±5.98 | 3.31±4.02
PFE + SpaCor + SemCor | 65.03±26.85 | 5.31±7.11 | 94.91±4.33 | 2.56±3.53
"""),
        (_DPCNET_FOLDS,),
    ),
    PaperTable(
        "dpcnet-3",
        f"{_DPCNET_SOURCE}, Table 3 (losses)",
        _DPCNET_ABLATION,
        rows_of("""
CE | 55.56±29.75 | 7.81±15.87 | 91.02±6.15 | 4.68±5.15
Dice | 57.65±28.31 | 7.65±13.33 | 91.65±6.65 | 3.73±4.55
CE + Dice | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
"""),
        (_DPCNET_FOLDS,),
    ),
    PaperTable(
        "dpcnet-4",
        f"{_DPCNET_SOURCE}, Table 4 (attention modules, tumor)",
        (
            Column("params"),
            Column("DSC [%]", "tumor.dice", 100, sd=True),
            Column("RVD", "tumor.rvd", sd=True),
            Column("ASSD [mm]", "tumor.assd", sd=True),
            Column("HD95 [mm]", "tumor.hd95", sd=True),
        ),
        rows_of("""
baseline | 22.58M | 51.66±30.29 | 0.47±2.19 | 7.83±15.89 | 37.44±31.31
AG | +1.02M | 52.41±31.42 | 0.18±1.89 | 7.80±16.01 | 34.42±28.23
DAF | +0.68M | 55.81±29.25 | 0.15±1.79 | 7.79±15.21 | 30.17±30.31
DPC-Net SemCor-first | +0.52M | 58.20±23.58* | -0.06±1.05* | 7.31±15.33* | 29.50±30.21*
DPC-Net SpaCor-first | +0.52M | 58.76±23.19* | -0.05±1.09* | 7.26±15.31* | 28.73±29.90*
"""),
        (
            _DPCNET_FOLDS,
            "* the paper's paired t-test, p < 0.05. How the paper treats cases without tumor is not stated.",
        ),
    ),
    PaperTable(
        "dpcnet-5",
        f"{_DPCNET_SOURCE}, Table 5 (LiTS test server)",
        (
            *_DPCNET_TEST,
            Column("prec@50", "lesions.group_50.precision", digits=3),
            Column("rec@50", "lesions.group_50.recall", digits=3),
        ),
        rows_of("""
SFF-Net | 59.2 | - | 1.585 | - | 93.7 | - | 3.678 | - | - | -
AH-Net | 63.4 | 0.365 | 1.185 | 6.482 | 96.3 | -0.004 | 1.099 | 2.398 | 0.468 | 0.301
H-DenseUNet | 72.2 | -0.072 | 1.102 | 6.228 | 96.1 | -0.018 | 1.450 | 3.150 | 0.384 | 0.393
LW-HCN | 73.0 | - | - | - | 96.5 | - | - | - | - | -
VA-MaskRCNN | 74.1 | -0.177 | 1.224 | 6.497 | 96.1 | -0.009 | 1.140 | 2.298 | 0.419 | 0.438
nnU-Net (single model, re-run) | 74.8 | -0.076 | 1.044 | 6.132 | 96.3 | 0.014 | 1.342 | 2.134 | 0.437 | 0.439
DPC-Net | 76.4 | -0.063 | 0.838 | 5.339 | 96.0 | 0.012 | 1.636 | 4.692 | 0.434 | 0.424
"""),
        (
            "The paper's rows come from the LiTS server (70 test cases), whose tumor distances, RVD and Dice "
            "variants are "
            "averaged over detected lesions: livseg evaluate --mode lits prints those. Ours here are per case.",
        ),
    ),
)


# --- Table of SFAN: Zhang Yao et al., "Semantic Feature Attention Network", arXiv:1911.00282.

_SFAN = (
    PaperTable(
        "sfan-1",
        "SFAN (arXiv:1911.00282), its figures on LiTS",
        (Column("tumor Dice per case [%]", "tumor.dice_per_case", 100, digits=1),),
        rows_of("""
SFAN | 71.0
best of the leaderboard at the time | 73.8
"""),
        ("The paper's rows: LiTS test server, Dice per case.",),
    ),
)


# --- Table of MFCNet: Pang et al., "Correlation Matters: Multi-scale Fine-Grained Contextual Information ...",
# PAKDD 2020.

_MFCNET = (
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


# --- Tables of MPU-Net: Yu & Han, arXiv:2307.05799. One binary class: liver with tumor against the rest.

_MPUNET_SOURCE = "MPU-Net (Yu & Han, arXiv:2307.05799)"
_MPUNET_REMARK = (
    "The positive class of the paper is the liver with its tumors. Its published precision and specificity are recall "
    "and NPV in the authors' code. Our values in those columns are recall and NPV too. The last columns have the "
    "textbook precision and specificity."
)


def _mpunet_columns(scale: float, digits: int) -> tuple[Column, ...]:
    names = (
        ("Dice", "dice"),
        ("Acc", "accuracy"),
        ("Prec (= recall)", "recall"),
        ("Spec (= NPV)", "npv"),
        ("IoU", "jaccard"),
        ("MCC", "mcc"),
        ("precision (textbook)", "precision"),
        ("specificity (textbook)", "specificity"),
    )
    unit = " [%]" if scale == 100 else ""
    return tuple(Column(f"{title}{unit}", f"liver.{metric}", scale, digits) for title, metric in names)


def _mpunet_quoted(text: str) -> tuple[tuple[str, ...], ...]:
    """The papers' rows do not have the two textbook columns."""
    return tuple((*row, "-", "-") for row in rows_of(text))


_MPUNET_TEST_CASES = """
27 .9356 .9982 .8990 .9985 .8790 .9354
28 .9411 .9896 .9802 .9981 .8887 .9363
29 .9569 .9968 .9657 .9987 .9173 .9553
30 .9520 .9958 .9277 .9966 .9084 .9502
31 .9232 .9922 .9856 .9993 .8573 .9211
32 .9602 .9954 .9581 .9974 .9234 .9577
33 .9537 .9953 .9333 .9964 .9114 .9514
34 .9241 .9943 .9414 .9977 .8590 .9213
35 .7368 .9439 .7941 .9770 .5833 .7079
36 .9583 .9963 .9767 .9989 .9200 .9566
37 .9618 .9955 .9583 .9974 .9263 .9594
38 .9343 .9936 .9368 .9968 .8766 .9309
39 .8969 .9902 .8674 .9932 .8131 .8924
40 .9667 .9957 .9635 .9975 .9355 .9644
41 .9370 .9930 .9451 .9968 .8815 .9334
42 .9456 .9955 .9228 .9966 .8969 .9436
43 .8187 .9776 .7552 .9827 .6930 .8101
44 .9503 .9933 .9423 .9958 .9053 .9468
45 .9108 .9891 .8853 .9923 .8361 .9054
46 .8702 .9955 .8435 .9971 .7702 .8683
"""

_MPUNET = (
    PaperTable(
        "mpunet-3",
        f"{_MPUNET_SOURCE}, Tables 3 to 5 (means of epochs 400 to 600)",
        _mpunet_columns(1, 6),
        _mpunet_quoted("""
MPU-Net, training | 0.960792 | 0.995213 | 0.978838 | 0.998553 | 0.9255525 | 0.9584755
MPU-Net, validation | 0.934909 | 0.9873545 | 0.973139 | 0.997362 | 0.8830005 | 0.9308275
U-Net, training | 0.873704 | 0.984101 | 0.820985 | 0.986936 | 0.777716 | 0.867728
U-Net, validation | 0.8736 | 0.9789 | 0.817744 | 0.982 | 0.777211 | 0.865111
"""),
        (_MPUNET_REMARK, "The paper's training rows are soft (weighted by probability); ours are of label maps."),
    ),
    PaperTable(
        "mpunet-7",
        f"{_MPUNET_SOURCE}, Table 7 (best checkpoints)",
        _mpunet_columns(100, 2),
        _mpunet_quoted("""
MPU-Net, training | 96.45 | 99.51 | 98.24 | 99.85 | 93.18 | 96.2
MPU-Net, validation | 94.94 | 99.07 | 96.65 | 99.68 | 90.58 | 94.53
U-Net, training | 87.5 | 98.43 | 82.26 | 98.71 | 77.94 | 86.9
U-Net, validation | 87.37 | 97.89 | 81.73 | 98.2 | 77.74 | 86.53
"""),
        (_MPUNET_REMARK,),
    ),
    PaperTable(
        "mpunet-8",
        f"{_MPUNET_SOURCE}, Table 8 (test cases)",
        _mpunet_columns(1, 4),
        tuple(
            (f"LiTS case {row[0]}", *(f"0{v}" for v in row[1:]), "-", "-")
            for row in map(str.split, _MPUNET_TEST_CASES.strip().splitlines())
        ),
        (_MPUNET_REMARK,),
        per_case=True,
    ),
    PaperTable(
        "mpunet-9",
        f"{_MPUNET_SOURCE}, Table 9 (mean of the 20 test cases)",
        _mpunet_columns(1, 6),
        _mpunet_quoted("MPU-Net | 0.92171 | 0.99084 | 0.9191 | 0.99524 | 0.859115 | 0.917395"),
        (_MPUNET_REMARK,),
    ),
)


# --- Tables of SAM + URIM: Zhang Yue et al., "Multi-phase Liver Tumor Segmentation ...", MICCAI 2021, arXiv:2108.00911.

_SAM_URIM_SOURCE = "SAM + URIM (Zhang et al., MICCAI 2021, arXiv:2108.00911)"
_SAM_URIM_REMARK = "The paper's rows: 121 in-house cases, five-fold cross-validation, tumor in the portal-venous phase."
_SAM_URIM_COLUMNS = (
    Column("DPC [%]", "tumor.dice_per_case", 100),
    Column("DG [%]", "tumor.dice_global", 100),
    Column("VOE [%]", "tumor.voe", 100),
    Column("RVD [%]", "tumor.rvd", 100),
    Column("ASD [mm]", "tumor.assd"),
    Column("RMSD [mm]", "tumor.rmsd"),
)
_SAM_URIM_TYPES = ("Cyst", "FNH", "HCC", "HEM", "METS")

_SAM_URIM = (
    PaperTable(
        "sam-urim-1",
        f"{_SAM_URIM_SOURCE}, Table 1",
        _SAM_URIM_COLUMNS,
        rows_of("""
MC-FCN | 51.80 | 71.63 | 59.30 | -5.92 | 27.26 | 30.45
MW-UNet | 73.37 | 86.34 | 37.10 | 10.11 | 10.73 | 18.16
PA-ResSeg | 77.26 | 86.21 | 33.46 | 4.46 | 3.71 | 7.82
SAM + URIM | 80.12 | 86.51 | 30.08 | -5.28 | 2.81 | 5.47
fusion ILF | 73.19 | 83.13 | 37.6 | -17.69 | 14.2 | 18.15
fusion DLF | 75.87 | 85.36 | 35.14 | -5.73 | 4.45 | 9.51
fusion MW | 77.39 | 85.52 | 33.07 | 5.43 | 6.31 | 8.89
fusion PA | 78.24 | 86.29 | 32.46 | 6.01 | 3.39 | 6.90
fusion SAM | 80.12 | 86.51 | 30.08 | -5.28 | 2.81 | 5.47
"""),
        (_SAM_URIM_REMARK, "The paper heads DG as DP and RMSD as RSMD in this table."),
    ),
    PaperTable(
        "sam-urim-2",
        f"{_SAM_URIM_SOURCE}, Table 2 (Dice per case by type)",
        (
            *(Column(f"{t} [%]", f"type.{t}.tumor.dice_per_case", 100) for t in _SAM_URIM_TYPES),
            Column("Average [%]", "tumor.dice", 100),
        ),
        rows_of("""
MC-FCN | 67.82 | 21.58 | 46.98 | 51.59 | 61.07 | 51.80
MW-UNet | 83.07 | 64.18 | 64.80 | 71.42 | 79.35 | 73.37
PA-ResSeg | 85.70 | 73.13 | 71.89 | 74.63 | 79.64 | 77.26
SAM + URIM | 90.87 | 66.08 | 79.11 | 75.42 | 83.27 | 80.12
"""),
        (_SAM_URIM_REMARK, "Ours by type needs a case table with the column type: --case-table FILE."),
    ),
    PaperTable(
        "sam-urim-3",
        f"{_SAM_URIM_SOURCE}, Table 3 (parts)",
        _SAM_URIM_COLUMNS,
        rows_of("""
single phase | 68.85 | 83.31 | 40.07 | -19.22 | 21.53 | 27.73
+ multi-phase (add) | 75.31 | 85.13 | 35.97 | -5.89 | 5.00 | 10.05
+ SAM | 79.10 | 86.12 | 31.22 | -5.51 | 3.44 | 6.46
+ URIM | 80.12 | 86.51 | 30.08 | -5.28 | 2.81 | 5.47
"""),
        (_SAM_URIM_REMARK,),
    ),
)


# --- all of them

TABLES = {table.name: table for paper in (_DPCNET, _SFAN, _MFCNET, _MPUNET, _SAM_URIM) for table in paper}


def paper_table(name: str) -> PaperTable:
    """The table of that name.

    Raises:
        UserError: There is none.
    """
    if name not in TABLES:
        raise UserError(f"there is no table {name!r}.\n  Tables: {', '.join(TABLES)}")
    return TABLES[name]
