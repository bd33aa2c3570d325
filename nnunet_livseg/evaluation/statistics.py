"""Summaries of values over cases, intervals and paired tests. Every figure is reproducible: fixed seeds."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 10_000
_RESAMPLES_OF_MEANS = 2_000  # hundreds of means are described, and their intervals need fewer digits than tests
_SEED = 20_170_401


def bootstrap_means(values: np.ndarray, *, resamples: int = RESAMPLES) -> np.ndarray:
    """Means of resampled rows: ``values (N,)`` or ``(N, M)`` gives ``(resamples,)`` or ``(resamples, M)``."""
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(_SEED)
    means = []
    for start in range(0, resamples, 500):
        rows = rng.integers(0, len(values), (min(500, resamples - start), len(values)))
        means.append(values[rows].mean(axis=1))
    return np.concatenate(means)


def confidence_interval(values: Sequence[float], *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean by the percentile bootstrap; NaN below two values."""
    if len(values) < 2:
        return math.nan, math.nan
    low, high = np.percentile(bootstrap_means(np.asarray(values), resamples=resamples), [2.5, 97.5])
    return float(low), float(high)


def describe(values: Sequence[float]) -> dict:
    """Mean, sample sd, quartiles, range and interval of the finite values, and how many were excluded."""
    array = np.asarray(list(values), dtype=np.float64)
    finite = array[np.isfinite(array)]
    summary = {
        "n": int(finite.size),
        "n_infinite": int(np.isinf(array).sum()),
        "n_undefined": int(np.isnan(array).sum()),
    }
    names = ("mean", "sd", "median", "q1", "q3", "min", "max")
    if not finite.size:
        return summary | dict.fromkeys(names, math.nan) | {"ci95": [math.nan, math.nan]}
    quartiles = np.percentile(finite, [50, 25, 75]).tolist()
    sd = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    figures = (float(finite.mean()), sd, *quartiles, float(finite.min()), float(finite.max()))
    return (
        summary
        | dict(zip(names, figures, strict=True))
        | {"ci95": list(confidence_interval(finite, resamples=_RESAMPLES_OF_MEANS))}
    )


def paired_tests(a: np.ndarray, b: np.ndarray) -> dict:
    """Compare paired values ``a`` and ``b`` ``(N,)``: mean of a - b, its interval, t-test and ``signed_ranks``.

    Pairs in which a value is not finite are left out and counted. Differences that are all zero have p = 1.
    """
    valid = np.isfinite(a) & np.isfinite(b)
    d = a[valid] - b[valid]
    figures = {"difference": math.nan, "ci95": [math.nan, math.nan], "p_t": math.nan}
    if d.size:
        figures = {"difference": float(d.mean()), "ci95": list(confidence_interval(d)), "p_t": _t_test(d)}
    return {"n": int(d.size), "n_left_out": int((~valid).sum())} | figures | signed_ranks(a[valid], b[valid])


def signed_ranks(a: np.ndarray, b: np.ndarray) -> dict:
    """Wilcoxon's signed-rank test of paired merits ``(N,)``, of which more is better, and its counts.

    Minus infinity is the worst merit: against a finite one it takes the highest rank, and two of them are equal. Pairs
    with an undefined value are left out. ``balance`` is above 0 where ``a`` has the larger sum of ranks.
    """
    valid = ~(np.isnan(a) | np.isnan(b))
    a, b = a[valid], b[valid]
    with np.errstate(invalid="ignore"):
        d = np.where(a == b, 0.0, a - b)
    counts = {"wins": int((d > 0).sum()), "ties": int((d == 0).sum()), "losses": int((d < 0).sum())}
    largest = np.abs(d[np.isfinite(d)]).max(initial=0.0)
    d = np.where(np.isinf(d), np.sign(d) * (2 * largest + 1), d)  # ranks alone count
    ranks = stats.rankdata(np.abs(d[d != 0]))
    balance = float((np.sign(d[d != 0]) * ranks).sum())
    return counts | {"p_wilcoxon": _wilcoxon(d) if d.size else math.nan, "balance": balance}


def _wilcoxon(d: np.ndarray) -> float:
    if not d.any():
        return 1.0
    return float(stats.wilcoxon(d).pvalue)  # drops zeros, exact for small samples


def _t_test(d: np.ndarray) -> float:
    if not d.any():
        return 1.0
    if d.size < 2 or np.ptp(d) <= 1e-9 * np.abs(d).max():  # t is not defined without spread
        return math.nan
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment; NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, math.nan)
    order = [int(i) for i in np.argsort(p) if not math.isnan(p[i])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, float(p[index]) * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted.tolist()
