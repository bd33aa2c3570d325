"""Table of SFAN: Zhang Yao et al., "Semantic Feature Attention Network", arXiv:1911.00282."""

from nnunet_livseg.evaluation.paper_table import Column, PaperTable, rows_of

TABLES = (
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
