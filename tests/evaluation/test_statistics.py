"""Tests, intervals and corrections: known answers and textbook formulas."""

import itertools
import math

import numpy as np
import pytest

from nnunet_livseg.evaluation.statistics import bootstrap_means, confidence_interval, describe, holm, paired_tests


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_counts_only_tests_that_were_made():
    first, nothing, last = holm([0.02, math.nan, 0.03])
    assert (first, last) == pytest.approx((0.04, 0.04))
    assert math.isnan(nothing)


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_against_all_sign_flips(seed):
    """The exact p is the share of sign patterns whose rank sum is at least as extreme."""
    d = np.random.default_rng(seed).normal(0.4, 1, 9)
    ranks = np.argsort(np.argsort(np.abs(d))) + 1
    middle = ranks.sum() / 2
    observed = abs(ranks[d > 0].sum() - middle)
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=9)]
    expected = np.mean([abs(s - middle) >= observed - 1e-9 for s in sums])
    assert paired_tests(d, np.zeros(9))["p_wilcoxon"] == pytest.approx(expected)


def test_t_by_its_formula():
    a, b = np.array([0.8, 0.7, 0.9, 0.6]), np.array([0.7, 0.65, 0.7, 0.62])
    d = a - b
    t = d.mean() / (d.std(ddof=1) / 2)
    density = lambda x: 2 / (math.pi * math.sqrt(3) * (1 + x * x / 3) ** 2)  # noqa: E731 - Student's t with 3 degrees
    x = np.linspace(0, abs(t), 200_001)
    inside = 2 * np.trapezoid(density(x), x)
    found = paired_tests(a, b)
    assert found["p_t"] == pytest.approx(1 - inside, rel=1e-6)
    assert found["difference"] == pytest.approx(0.0825)
    assert (found["wins"], found["ties"], found["losses"]) == (3, 0, 1)


def test_equal_methods_differ_in_nothing():
    a = np.array([0.5, 0.6, 0.7])
    found = paired_tests(a, a.copy())
    assert (found["p_wilcoxon"], found["p_t"], found["difference"], found["ties"]) == (1, 1, 0, 3)


def test_infinite_pairs_are_left_out_and_counted():
    found = paired_tests(np.array([1.0, np.inf, 3.0, np.nan]), np.array([2.0, 1.0, 5.0, 1.0]))
    assert (found["n"], found["n_left_out"], found["difference"]) == (2, 2, -1.5)
    nothing = paired_tests(np.array([np.inf]), np.array([1.0]))
    assert nothing["n"] == 0
    assert math.isnan(nothing["p_wilcoxon"])


def test_the_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = confidence_interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)
    assert low < values.mean() < high
    assert confidence_interval(values) == (low, high)  # the same every time
    assert all(math.isnan(bound) for bound in confidence_interval([1.0]))


def test_resampled_rows_stay_together():
    """Columns are methods: a resample draws whole cases."""
    base = np.random.default_rng(1).random(20)
    means = bootstrap_means(np.stack([base, base + 1], axis=1), resamples=50)
    assert means.shape == (50, 2)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1)


def test_descriptions_count_what_they_leave_out():
    found = describe([1.0, 2.0, 3.0, math.inf, math.nan, math.nan])
    assert (found["n"], found["n_infinite"], found["n_undefined"]) == (3, 1, 2)
    assert (found["mean"], found["sd"], found["median"], found["q1"], found["max"]) == (2, 1, 2, 1.5, 3)
    nothing = describe([math.nan])
    assert nothing["n"] == 0
    assert math.isnan(nothing["mean"])
