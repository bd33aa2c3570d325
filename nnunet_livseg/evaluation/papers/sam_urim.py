"""Tables of SAM + URIM: Zhang Yue et al., "Multi-phase Liver Tumor Segmentation ...", MICCAI 2021, arXiv:2108.00911."""

from nnunet_livseg.evaluation.paper_table import Column, PaperTable, rows_of

_SOURCE = "SAM + URIM (Zhang et al., MICCAI 2021, arXiv:2108.00911)"
_REMARK = "The paper's rows: 121 in-house cases, five-fold cross-validation, tumor in the portal-venous phase."
_COLUMNS = (
    Column("DPC [%]", "tumor.dice_per_case", 100),
    Column("DG [%]", "tumor.dice_global", 100),
    Column("VOE [%]", "tumor.voe", 100),
    Column("RVD [%]", "tumor.rvd", 100),
    Column("ASD [mm]", "tumor.assd"),
    Column("RMSD [mm]", "tumor.rmsd"),
)
_TYPES = ("Cyst", "FNH", "HCC", "HEM", "METS")

TABLES = (
    PaperTable(
        "sam-urim-1",
        f"{_SOURCE}, Table 1",
        _COLUMNS,
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
        (_REMARK, "The paper heads DG as DP and RMSD as RSMD in this table."),
    ),
    PaperTable(
        "sam-urim-2",
        f"{_SOURCE}, Table 2 (Dice per case by type)",
        (
            *(Column(f"{t} [%]", f"type.{t}.tumor.dice_per_case", 100) for t in _TYPES),
            Column("Average [%]", "tumor.dice", 100),
        ),
        rows_of("""
MC-FCN | 67.82 | 21.58 | 46.98 | 51.59 | 61.07 | 51.80
MW-UNet | 83.07 | 64.18 | 64.80 | 71.42 | 79.35 | 73.37
PA-ResSeg | 85.70 | 73.13 | 71.89 | 74.63 | 79.64 | 77.26
SAM + URIM | 90.87 | 66.08 | 79.11 | 75.42 | 83.27 | 80.12
"""),
        (_REMARK, "Ours by type needs a case table with the column type: --case-table FILE."),
    ),
    PaperTable(
        "sam-urim-3",
        f"{_SOURCE}, Table 3 (parts)",
        _COLUMNS,
        rows_of("""
single phase | 68.85 | 83.31 | 40.07 | -19.22 | 21.53 | 27.73
+ multi-phase (add) | 75.31 | 85.13 | 35.97 | -5.89 | 5.00 | 10.05
+ SAM | 79.10 | 86.12 | 31.22 | -5.51 | 3.44 | 6.46
+ URIM | 80.12 | 86.51 | 30.08 | -5.28 | 2.81 | 5.47
"""),
        (_REMARK,),
    ),
)
