"""Tables of MPU-Net: Yu & Han, arXiv:2307.05799. One binary class: liver with tumor against the rest."""

from nnunet_livseg.evaluation.paper_table import Column, PaperTable, rows_of

_SOURCE = "MPU-Net (Yu & Han, arXiv:2307.05799)"
_REMARK = (
    "The positive class of the paper is the liver with its tumors. Its published precision and specificity are recall "
    "and NPV in the authors' code: our values in those columns are recall and NPV too, the textbook ones stand at "
    "the end."
)


def _columns(scale: float, digits: int) -> tuple[Column, ...]:
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


def _quoted(text: str) -> tuple[tuple[str, ...], ...]:
    """The papers' rows do not have the two textbook columns."""
    return tuple((*row, "-", "-") for row in rows_of(text))


_TEST_CASES = """
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

TABLES = (
    PaperTable(
        "mpunet-3",
        f"{_SOURCE}, Tables 3 to 5 (means of epochs 400 to 600)",
        _columns(1, 6),
        _quoted("""
MPU-Net, training | 0.960792 | 0.995213 | 0.978838 | 0.998553 | 0.9255525 | 0.9584755
MPU-Net, validation | 0.934909 | 0.9873545 | 0.973139 | 0.997362 | 0.8830005 | 0.9308275
U-Net, training | 0.873704 | 0.984101 | 0.820985 | 0.986936 | 0.777716 | 0.867728
U-Net, validation | 0.8736 | 0.9789 | 0.817744 | 0.982 | 0.777211 | 0.865111
"""),
        (_REMARK, "The paper's training rows are soft (weighted by probability); ours are of label maps."),
    ),
    PaperTable(
        "mpunet-7",
        f"{_SOURCE}, Table 7 (best checkpoints)",
        _columns(100, 2),
        _quoted("""
MPU-Net, training | 96.45 | 99.51 | 98.24 | 99.85 | 93.18 | 96.2
MPU-Net, validation | 94.94 | 99.07 | 96.65 | 99.68 | 90.58 | 94.53
U-Net, training | 87.5 | 98.43 | 82.26 | 98.71 | 77.94 | 86.9
U-Net, validation | 87.37 | 97.89 | 81.73 | 98.2 | 77.74 | 86.53
"""),
        (_REMARK,),
    ),
    PaperTable(
        "mpunet-8",
        f"{_SOURCE}, Table 8 (test cases)",
        _columns(1, 4),
        tuple(
            (f"LiTS case {row[0]}", *(f"0{v}" for v in row[1:]), "-", "-")
            for row in map(str.split, _TEST_CASES.strip().splitlines())
        ),
        (_REMARK,),
        per_case=True,
    ),
    PaperTable(
        "mpunet-9",
        f"{_SOURCE}, Table 9 (mean of the 20 test cases)",
        _columns(1, 6),
        _quoted("MPU-Net | 0.92171 | 0.99084 | 0.9191 | 0.99524 | 0.859115 | 0.917395"),
        (_REMARK,),
    ),
)
