"""Tables of DPC-Net: Zhang et al., "Decoupled Pyramid Correlation Network for Liver Tumor Segmentation", Med. Phys.
2022."""

from nnunet_livseg.evaluation.paper_table import Column, PaperTable, rows_of

_SOURCE = "DPC-Net (Zhang et al., Medical Physics 2022)"
_FOLDS = "The paper's rows: 4-fold cross-validation on the 131 training cases of LiTS, mean±sd over cases."
_ABLATION = (
    Column("tumor DSC [%]", "tumor.dice", 100, sd=True),
    Column("tumor ASSD [mm]", "tumor.assd", sd=True),
    Column("liver DSC [%]", "liver.dice", 100, sd=True),
    Column("liver ASSD [mm]", "liver.assd", sd=True),
)
_TEST = tuple(
    column
    for short, structure in (("T", "tumor"), ("L", "liver"))
    for column in (
        Column(f"{short} DSC [%]", f"{structure}.dice", 100, digits=1),
        Column(f"{short} RVD", f"{structure}.rvd", digits=3),
        Column(f"{short} ASSD [mm]", f"{structure}.assd", digits=3),
        Column(f"{short} HD95 [mm]", f"{structure}.hd95", digits=3),
    )
)

TABLES = (
    PaperTable(
        "dpcnet-1",
        f"{_SOURCE}, Table 1 (poolings)",
        _ABLATION,
        rows_of("""
3D U-Net baseline | 51.66±30.29 | 7.83±15.89 | 87.85±8.55 | 5.48±6.67
+SemCor avg | 56.19±29.05 | 7.80±15.78 | 90.21±7.48 | 4.80±5.20
+SemCor max | 55.07±29.06 | 7.77±15.71 | 90.09±7.66 | 4.77±5.31
+SemCor avg+max | 57.10±28.31 | 7.78±14.63 | 91.04±6.83 | 3.99±4.66
+SpaCor avg | 58.02±28.33 | 7.32±15.31 | 91.05±6.60 | 3.89±4.33
+SpaCor max | 57.96±29.01 | 7.27±14.65 | 91.32±6.56 | 3.61±4.45
+SpaCor avg+max | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
"""),
        (_FOLDS, "The SpaCor rows are on top of SemCor avg+max."),
    ),
    PaperTable(
        "dpcnet-2",
        f"{_SOURCE}, Table 2 (modules)",
        _ABLATION,
        rows_of("""
baseline | 51.66±30.29 | 7.83±15.89 | 87.85±8.55 | 5.48±6.67
SpaCor | 55.11±29.88 | 7.26±10.28 | 88.67±8.26 | 5.05±4.46
SemCor | 57.10±28.31 | 7.78±14.63 | 91.04±6.83 | 3.99±4.66
SpaCor + SemCor | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
PFE | 59.89±28.12 | 6.23±12.32 | 92.31±5.98 | 3.31±4.02
PFE + SpaCor + SemCor | 65.03±26.85 | 5.31±7.11 | 94.91±4.33 | 2.56±3.53
"""),
        (_FOLDS,),
    ),
    PaperTable(
        "dpcnet-3",
        f"{_SOURCE}, Table 3 (losses)",
        _ABLATION,
        rows_of("""
CE | 55.56±29.75 | 7.81±15.87 | 91.02±6.15 | 4.68±5.15
Dice | 57.65±28.31 | 7.65±13.33 | 91.65±6.65 | 3.73±4.55
CE + Dice | 58.76±28.32 | 7.26±15.31 | 92.29±6.53 | 3.54±4.53
"""),
        (_FOLDS,),
    ),
    PaperTable(
        "dpcnet-4",
        f"{_SOURCE}, Table 4 (attention modules, tumor)",
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
        (_FOLDS, "* the paper's paired t-test, p < 0.05. How the paper treats cases without tumor is not stated."),
    ),
    PaperTable(
        "dpcnet-5",
        f"{_SOURCE}, Table 5 (LiTS test server)",
        (
            *_TEST,
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
