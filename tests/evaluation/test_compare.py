"""Methods against each other: what is bold, what is noise, who is left out."""

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import structures_from_values
from nnunet_livseg.evaluation.comparison import compare, compare_results
from nnunet_livseg.evaluation.comparison_tables import comparison_markdown
from nnunet_livseg.evaluation.folder_evaluation import FolderResult
from nnunet_livseg.evaluation.metrics import metric_table
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import Inputs
from nnunet_livseg.evaluation.printed_tables import TABLES, paper_table, render
from nnunet_livseg.evaluation.results import CaseResult
from nnunet_livseg.evaluation.summary import summarize

STRUCTURES = structures_from_values((), (2,))


def method(name, dice, *, folds=(), cases=None, options=None):
    """A finished evaluation with given tumor Dice values; every other metric is 0.5."""
    options = options or Options()
    results = []
    for case, value in zip(cases or [f"c{n:02d}" for n in range(len(dice))], dice, strict=True):
        scores = dict.fromkeys(metric_table(options), 0.5) | {"dice": float(value)}
        counts = {"tumor": {"both": 5, "predicted": 10, "reference": 10, "image": 100}}
        results.append(CaseResult(case, "mm", 3, {"tumor": scores}, counts))
    inputs = Inputs(name, STRUCTURES, [], folds=list(folds))
    return FolderResult(inputs, options, results, [], {}, summarize(results, options))


def verdicts(*methods, **kw):
    found = compare_results(methods, **kw)
    return found, {(p.a, p.b): p for p in found.pairs if p.metric == "dice"}


BASE = np.linspace(0.4, 0.8, 20)


def test_a_large_gain_is_proven_and_bold():
    found, pairs = verdicts(method("a", BASE), method("b", BASE + 0.1 + 0.01 * np.sin(range(20))))
    assert pairs["a", "b"].significant
    assert not pairs["a", "b"].within_noise
    assert found.best("tumor", "dice") == ("b", True)
    assert "| b | **" in comparison_markdown(found)
    assert (pairs["a", "b"].wins, pairs["a", "b"].losses) == (0, 20)


def test_a_significant_gain_inside_the_noise_is_not_bold():
    found, pairs = verdicts(method("a", BASE), method("b", BASE + 0.03 + 0.001 * np.sin(range(20))))
    assert pairs["a", "b"].significant
    assert pairs["a", "b"].within_noise
    assert found.best("tumor", "dice") == ("b", False)
    text = comparison_markdown(found)
    assert "**" not in text
    assert "within the noise of two runs (0.06)" in text


def test_five_folds_have_a_lower_floor():
    _, pairs = verdicts(method("a", BASE, folds="01234"), method("b", BASE + 0.03, folds="01234"))
    assert pairs["a", "b"].noise_floor == 0.01
    assert not pairs["a", "b"].within_noise
    _, pairs = verdicts(method("a", BASE), method("b", BASE + 0.03), folds=5)
    assert pairs["a", "b"].noise_floor == 0.01


def test_the_best_of_three_must_beat_both():
    wobble = 0.05 * np.sin(np.arange(20) * 2.1)
    found, pairs = verdicts(method("a", BASE), method("b", BASE + 0.2), method("c", BASE + 0.2 + wobble))
    assert pairs["a", "b"].significant
    assert not pairs["b", "c"].significant
    assert not found.best("tumor", "dice")[1]


def test_many_comparisons_cost_significance():
    rng = np.random.default_rng(3)
    methods = [method(name, BASE + 0.02 + rng.normal(0, 0.1, 20)) for name in "abcde"]
    _, pairs = verdicts(*methods)
    assert len(pairs) == 10
    assert all(p.p_holm >= p.p_wilcoxon for p in pairs.values())
    smallest = min(pairs.values(), key=lambda p: p.p_wilcoxon)
    assert smallest.p_holm == pytest.approx(min(1, 10 * smallest.p_wilcoxon))


def test_lower_is_better_for_distances_and_nearer_to_zero_for_rvd():
    a, b = method("a", BASE), method("b", BASE)
    for n, (x, y) in enumerate(zip(a.cases, b.cases, strict=True)):
        x.structures["tumor"] |= {"assd": 2.0 + n / 100, "rvd": -0.5 - n / 100}
        y.structures["tumor"] |= {"assd": 1.0, "rvd": 0.1}
    found, _ = verdicts(a, b)
    assert found.best("tumor", "assd") == ("b", True)
    assert found.best("tumor", "rvd") == ("b", True)
    assert found.best("tumor", "volume_reference")[0] is None


MISSED, FALSE_ALARM, EMPTY = (
    {"both": 0, "predicted": p, "reference": r, "image": 100} for p, r in ((0, 9), (9, 0), (0, 0))
)


@pytest.mark.parametrize(
    ("metric", "good", "value", "counts"),
    [
        ("assd", (3.0, 1.0), np.inf, MISSED),
        ("hd95", (3.0, 1.0), np.inf, FALSE_ALARM),
        ("precision", (0.7, 0.9), np.nan, MISSED),
        ("npv", (0.7, 0.9), np.nan, FALSE_ALARM),
        ("rvd", (0.3, 0.1), np.inf, FALSE_ALARM),
    ],
)
@pytest.mark.parametrize("n_lacking", [1, 10, 20])
def test_nobody_wins_by_what_it_lacks(metric, good, value, counts, n_lacking):
    a, b = method("a", BASE), method("b", BASE)
    for n, (x, y) in enumerate(zip(a.cases, b.cases, strict=True)):
        x.structures["tumor"][metric], y.structures["tumor"][metric] = good
        if n < n_lacking:
            y.structures["tumor"][metric] = value
            y.counts["tumor"] = counts
    found, _ = verdicts(a, b)
    (pair,) = [p for p in found.pairs if p.metric == metric]
    assert (pair.lacking_a, pair.lacking_b, pair.lacks_more) == (0, n_lacking, "b")
    assert (pair.wins, pair.ties, pair.losses) == (n_lacking, 0, 20 - n_lacking)
    assert found.best("tumor", metric) == ("a", n_lacking == 20)
    assert pair.significant == (n_lacking == 20)
    if metric != "npv":
        text = "significant: a" if n_lacking == 20 else f"not significant: b has no value in {n_lacking} cases"
        assert text in comparison_markdown(found)
    assert found.ranking[f"tumor.{metric}"]["a"]["rank_shares"][0] > 0.6


def test_a_rightly_empty_case_is_nobodys_lack():
    a, b = method("a", BASE), method("b", BASE)
    for n, (x, y) in enumerate(zip(a.cases, b.cases, strict=True)):
        x.structures["tumor"]["assd"], y.structures["tumor"]["assd"] = 3.0 + n, 1.0
        if n < 4:
            for one in (x, y):
                one.structures["tumor"]["assd"], one.counts["tumor"] = np.nan, EMPTY
    found, _ = verdicts(a, b)
    (pair,) = [p for p in found.pairs if p.metric == "assd"]
    assert (pair.n, pair.n_left_out, pair.lacks_more, pair.wins + pair.ties + pair.losses) == (16, 4, None, 16)
    assert found.best("tumor", "assd") == ("b", True)


def test_only_common_cases_count_and_the_others_are_named():
    found, pairs = verdicts(method("a", BASE[:3], cases=["x", "y", "z"]), method("b", BASE[:3], cases=["y", "z", "w"]))
    assert found.cases == ["y", "z"]
    assert found.left_out == {"w": ["a"], "x": ["b"]}
    assert pairs["a", "b"].n == 2
    assert "x (not in b)" in comparison_markdown(found)


def test_few_cases_are_said_to_be_few():
    found, _ = verdicts(method("a", BASE[:4]), method("b", BASE[:4] + 0.3))
    assert "With 4 cases the Wilcoxon test cannot reach p < 0.05" in comparison_markdown(found)


def test_ranks_of_the_bootstrap():
    found, _ = verdicts(method("a", BASE), method("b", BASE + 0.1))
    ranking = found.ranking["tumor.dice"]
    assert ranking["b"]["rank_shares"] == [1.0, 0.0]
    assert (ranking["a"]["mean_rank"], ranking["b"]["mean_rank"]) == (2.0, 1.0)


def test_what_cannot_be_compared():
    with pytest.raises(UserError, match="no cases in common"):
        compare_results([method("a", [0.5], cases=["x"]), method("b", [0.5], cases=["y"])])
    with pytest.raises(UserError, match="different options"):
        compare_results([method("a", BASE), method("b", BASE, options=Options(hd95="pooled"))])


@pytest.fixture
def folders(tmp_path, draw):
    lesion = ((3, 6), (5, 10), (5, 10))
    for folder in ("one/pred", "two/pred", "ref"):
        (tmp_path / folder).mkdir(parents=True)
        for n in range(3):
            cut = lesion if folder == "ref" else (lesion[0], lesion[1], (5, 9 - n))
            image = sitk.GetImageFromArray(draw.liver_scan(lesions=[cut]))
            sitk.WriteImage(image, str(tmp_path / folder / f"c{n}.nii.gz"))
    return [tmp_path / "one/pred", tmp_path / "two/pred"], tmp_path / "ref", tmp_path / "out"


def test_folders_are_evaluated_and_compared(folders):
    methods, references, out = folders
    found = compare(methods, references, out=out, liver=(1,), tumor=(2,), workers=1)
    assert found.names == ["one_pred", "two_pred"]
    document = json.loads((out / "comparison.json").read_text())
    assert document["schema"] == "nnunet_livseg.comparison/1"
    assert (out / "one_pred" / "cases.csv").is_file()
    assert (out / "comparison.csv").read_text().startswith("structure,metric,a,b,n,")
    again = compare(methods, references, out=out, liver=(1,), tumor=(2,), workers=1)
    assert [result.n_reused for result in again.methods] == [3, 3]


def test_names_must_differ(folders):
    methods, references, out = folders
    settings = {"out": out, "liver": (1,), "tumor": (2,), "workers": 1}
    with pytest.raises(UserError, match="need different names"):
        compare(methods, references, names=["x", "x"], **settings)
    with pytest.raises(UserError, match=r"--names has 1 of 2 names.*\n  Give one for each"):
        compare(methods, references, names=["x"], **settings)
    for name in ("../x", "", "a/b"):
        with pytest.raises(UserError, match="cannot be that of a folder"):
            compare(methods, references, names=["y", name], **settings)
    with pytest.raises(UserError, match="at least two methods"):
        compare(methods[:1], references, **settings)
    with pytest.raises(UserError, match="predictions do not exist"):
        compare([methods[0], methods[0].with_name("nowhere")], references, **settings)
    assert not (out / methods[0].name).exists()


@pytest.mark.parametrize("name", TABLES)
def test_every_papers_table_prints_quoted_rows_and_ours(name):
    table = paper_table(name)
    for row in table.rows:
        assert len(row) == 1 + len(table.columns), row
    text = render(table, [method("ours", BASE)])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in lines}) == 1
    assert sum("(quoted)" in line for line in lines) == len(table.rows)
    assert any(line.startswith("| ours") for line in lines)


def test_dpcnet_table_4_in_its_columns():
    text = render(paper_table("dpcnet-4"), [method("ours", [0.5, 0.7])])
    assert (
        "| DPC-Net SpaCor-first (quoted) | +0.52M | 58.76±23.19* | -0.05±1.09* | 7.26±15.31* | 28.73±29.90* |" in text
    )
    assert "| ours | - | 60.00±14.14 | 0.50±0.00 | 0.50±0.00 | 0.50±0.00 |" in text


def test_our_best_in_a_papers_table_is_bold_only_where_proven():
    found = compare_results([method("a", BASE), method("b", BASE + 0.1 + 0.01 * np.sin(range(20)))])
    text = render(paper_table("dpcnet-4"), found.methods, comparison=found)
    assert re.search(r"\| b \| - \| \*\*70\.\d\d±12\.\d\d\*\*\* \| 0\.50±0\.00 \|", text)  # bold, and the paper's star
    assert f"| a | - | 60.00±{100 * BASE.std(ddof=1):.2f} | 0.50±0.00 |" in text


def test_quoted_mean_of_mpunet_is_the_mean_of_its_quoted_cases():
    cases, mean = TABLES["mpunet-8"].rows, TABLES["mpunet-9"].rows[0]
    for column in range(1, 7):
        values = [float(row[column]) for row in cases]
        assert float(mean[column]) == pytest.approx(sum(values) / len(values), abs=6e-5)


def test_mfcnets_columns_are_slices():
    volumes = method("ours", [0.5, 0.7])
    assert "| ours | - | - |" in render(paper_table("mfcnet-1"), [volumes])
    images = method("ours", [0.5, 0.7])
    images.summary["ndim"] = 2
    assert "| ours | 60.00 | 0.50 |" in render(paper_table("mfcnet-1"), [images])


def test_an_unknown_table_names_the_known():
    with pytest.raises(UserError, match=r"no table 'dpcnet-9'.\n  Tables: dpcnet-1, dpcnet-2"):
        paper_table("dpcnet-9")
