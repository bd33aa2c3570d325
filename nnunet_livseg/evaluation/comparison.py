"""Several methods on the same cases: paired tests, intervals, correction for many tests, and the noise floor."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.output_folder import require_nothing_foreign
from nnunet_livseg.evaluation.comparison_tables import FILES, write_comparison
from nnunet_livseg.evaluation.folder_evaluation import evaluate_folder
from nnunet_livseg.evaluation.options import Options
from nnunet_livseg.evaluation.pairing import existing
from nnunet_livseg.evaluation.results import (
    NOISE_FIVE_FOLDS,
    NOISE_ONE_FOLD,
    Comparison,
    FolderResult,
    PairedTest,
    finite_merits,
)
from nnunet_livseg.evaluation.statistics import bootstrap_means, holm, paired_tests, signed_ranks


def compare(
    methods: Sequence[str | Path],
    references: str | Path | None = None,
    *,
    out: str | Path,
    names: Sequence[str] | None = None,
    liver: Iterable[int] = (),
    tumor: Iterable[int] = (),
    reference_liver: Iterable[int] = (),
    reference_tumor: Iterable[int] = (),
    options: Options | None = None,
    folds: int | None = None,
    case_table: str | Path | None = None,
    images: str | Path | None = None,
    workers: int | None = 1,
    memory_gb: float | None = None,
    progress: bool = False,
    on_guess: Callable[[str], None] | None = None,
) -> Comparison:
    """Evaluate several folders of predictions of the same cases and test their differences.

    Each method's own evaluation goes to ``out/METHOD`` and is reused like that of ``evaluate_folder``; the comparison
    is written as ``comparison.json``, ``comparison.csv`` and ``comparison.md``.

    Args:
        methods: Folders of predictions or model folders.
        references: Folder of references. For model folders, defaults to the references of their dataset.
        out: Folder for the results.
        names: Names of the methods in tables. Defaults to the folders' names.
        folds: Folds of the cross-validation behind the predictions. Defaults to those of model folders, else 1.

    The other arguments are those of ``evaluate_folder``.

    Raises:
        UserError: If there are fewer than two methods, two with one name, or no common case.
    """
    out = Path(out)
    if len(methods) < 2:
        raise UserError(f"a comparison needs at least two methods, but got {len(methods)}.")
    if folds is not None and folds < 1:
        raise UserError(f"--cv-folds {folds}: predictions come from at least one fold. Omit it, or give 1 or more.")
    named = _names(methods, names)
    for method in methods:  # a wrong name is told before the first method's hours
        existing(method, "predictions")
    require_nothing_foreign(out, FILES, record=FILES[0], made_before=(out / FILES[0]).is_file())
    settings = {"liver": tuple(liver), "tumor": tuple(tumor), "options": options, "case_table": case_table}
    settings |= {"reference_liver": tuple(reference_liver), "reference_tumor": tuple(reference_tumor)}
    settings |= {"images": images, "on_guess": on_guess}
    settings |= {"workers": workers, "memory_gb": memory_gb, "progress": progress}
    results = [
        evaluate_folder(folder, references, out=out / name, method=name, **settings)
        for name, folder in zip(named, methods, strict=True)
    ]
    comparison = compare_results(results, folds=folds)
    write_comparison(comparison, out)
    return comparison


def compare_results(
    results: Sequence[FolderResult],
    *,
    folds: int | None = None,
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare finished evaluations over the cases that all of them have.

    Args:
        results: One evaluation per method.
        folds: Folds of the cross-validation behind the predictions.
        baseline: The method that all others are tested against. Defaults to tests of every pair.
        floors: ``structure.metric`` to the measured noise between two runs of one method. Defaults to what is known of
            LiTS.

    Raises:
        UserError: No common case or structure, or different definitions.
    """
    if len({result.options for result in results}) > 1:
        raise UserError(
            "the methods were evaluated with different options, so their numbers cannot be compared.\n"
            "  Evaluate them again with the same options."
        )
    having = [{case.case for case in result.cases} for result in results]
    common = sorted(set.intersection(*having))
    if not common:
        raise UserError(
            "the methods have no cases in common: "
            + "; ".join(f"{r.method}: {len(r.cases)} cases" for r in results)
            + "\n  The files of a case must have the same name in every folder."
        )
    left_out = {
        case: [r.method for r, cases in zip(results, having, strict=True) if case not in cases]
        for case in sorted(set.union(*having) - set(common))
    }
    n_folds = folds or min(len(result.inputs.folds) or 1 for result in results)
    comparison = Comparison(list(results), common, left_out, folds=n_folds)
    for structure in _common_structures(results):
        for metric, row in results[0].metrics.items():
            if row.better:
                floor = (floors or {}).get(f"{structure}.{metric}", noise_floor(structure, metric, n_folds))
                comparison.pairs += _tests(comparison, structure, metric, row.better, baseline, floor)
                merits = finite_merits(comparison.merits(structure, metric))
                comparison.ranking[f"{structure}.{metric}"] = _ranking(comparison.names, merits)
    return comparison


def _names(methods: Sequence[str | Path], names: Sequence[str] | None) -> list[str]:
    if names and len(names) != len(methods):
        raise UserError(
            f"--names has {len(names)} of {len(methods)} names: {', '.join(names)}.\n"
            "  Give one for each method, in their order."
        )
    for name in names or ():
        if name in ("", "..") or Path(name).name != name:
            raise UserError(
                f"the method name {name!r} cannot be that of a folder, but each method's evaluation goes to OUT/NAME."
                "\n  Choose a name without slashes."
            )
    found = list(names) if names else _what_differs([Path(method).resolve().name for method in methods])
    if not names and len(set(found)) < len(found):  # runs/a/predictions and runs/b/predictions
        found = ["_".join(Path(method).resolve().parts[-2:]) for method in methods]
    if len(set(found)) < len(found):
        raise UserError(
            f"the methods need different names, but are called {', '.join(found)}.\n  Name them: --names A B ..."
        )
    return found


def _what_differs(names: list[str]) -> list[str]:
    """``TRAINER__PLANS__CONFIGURATION`` without the parts that all trainings share."""
    parts = [name.split("__") for name in names]
    if {len(split) for split in parts} != {3} or len(set(names)) < len(names):
        return names
    differing = [index for index in range(3) if len({split[index] for split in parts}) > 1]
    return ["__".join(split[index] for index in differing) for split in parts]


def _common_structures(results: Sequence[FolderResult]) -> list[str]:
    names = list(results[0].inputs.structures.values)
    common = [name for name in names if all(name in result.inputs.structures.values for result in results)]
    if not common:
        raise UserError("the methods have no structures in common. Compare models of the same labels.")
    return common


def noise_floor(structure: str, metric: str, folds: int) -> float | None:
    """Differences below this occur between two runs of one method; known for the tumor Dice only."""
    if (structure, metric) != ("tumor", "dice"):
        return None
    return NOISE_FIVE_FOLDS if folds >= 5 else NOISE_ONE_FOLD


def _pairs(names: list[str], baseline: str | None) -> list[tuple[int, int]]:
    """Of all methods, or of each with the baseline."""
    if baseline is None:
        return list(itertools.combinations(range(len(names)), 2))
    return [(i, j) for j, name in enumerate(names) if name == baseline for i in range(len(names)) if i != j]


def _tests(
    comparison: Comparison, structure: str, metric: str, better: str, baseline: str | None, floor: float | None
) -> list[PairedTest]:
    values, merits = comparison.values(structure, metric), comparison.merits(structure, metric)
    values = np.abs(values) if better == "zero" else values
    lacking = comparison.lacking(structure, metric).sum(axis=0).tolist()
    rows = []
    for i, j in _pairs(comparison.names, baseline):
        test = paired_tests(values[:, i], values[:, j]) | signed_ranks(merits[:, i], merits[:, j])
        balance = test.pop("balance")
        test["winner"] = comparison.names[i if balance > 0 else j] if balance else None
        test |= {"lacking_a": lacking[i], "lacking_b": lacking[j]}
        rows.append((comparison.names[i], comparison.names[j], test))
    adjusted = holm([test["p_wilcoxon"] for _, _, test in rows])
    return [
        PairedTest(structure, metric, a, b, p_holm=p, noise_floor=floor, **(test | {"ci95": tuple(test["ci95"])}))
        for (a, b, test), p in zip(rows, adjusted, strict=True)
    ]


def _ranking(names: list[str], merits: np.ndarray) -> dict[str, dict]:
    """Mean rank over cases, and how often each method takes each rank when the cases are drawn again."""
    from scipy.stats import rankdata

    if not len(merits):
        return {}
    ranks = rankdata(-merits, axis=1).mean(axis=0)
    means = bootstrap_means(merits)
    places = rankdata(-means, axis=1, method="min").astype(int)
    shares = [[float((places[:, m] == place).mean()) for place in range(1, len(names) + 1)] for m in range(len(names))]
    return {
        name: {"mean_rank": float(ranks[m]), "rank_shares": shares[m], "n": len(merits)} for m, name in enumerate(names)
    }
