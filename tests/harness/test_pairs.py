"""Which experiment may be called better, and how far other rows would move a share."""

import pytest

from my_study.harness.reporting.estimates import Estimate, interval_of_share
from my_study.harness.reporting.pairs import compare_pairs, correct

ACCURACIES = {
    "linear": [0.90, 0.94, 0.92],
    "mlp": [0.93, 0.95, 0.94],
    "cnn": [0.97, 0.98, 0.99],
}


def test_each_pair_is_tested_seed_by_seed_and_corrected_for_the_number_of_pairs() -> None:
    mlp, cnn, best = compare_pairs(ACCURACIES, higher_is_better=True)
    assert [(pair.first, pair.second) for pair in (mlp, cnn, best)] == [
        ("mlp", "linear"),
        ("cnn", "linear"),
        ("cnn", "mlp"),
    ]
    # as scipy.stats.ttest_rel has it
    assert cnn.p == pytest.approx(0.0266714732) and best.p == pytest.approx(0.0202041029)
    assert cnn.difference.mean == pytest.approx(0.06)
    assert cnn.difference.half_width == pytest.approx(0.1030265273 - 0.06)
    # Holm: the smallest times 3, the next times 2 but not smaller than that, the last as it is
    assert best.corrected == cnn.corrected == pytest.approx(3 * 0.0202041029)
    assert mlp.corrected == mlp.p == pytest.approx(0.0741799002)
    assert not any(pair.is_better for pair in (mlp, cnn, best)), "0.02 counts, uncorrected"
    alone = {name: ACCURACIES[name] for name in ("mlp", "cnn")}
    (pair,) = compare_pairs(alone, higher_is_better=True)
    assert pair.first == "cnn" and pair.is_better


def test_a_lower_error_is_the_better_one() -> None:
    errors = {"linear": [2.5, 2.6, 2.4], "mlp": [2.0, 2.1, 1.95]}
    (pair,) = compare_pairs(errors, higher_is_better=False)
    assert pair.first == "mlp" and pair.is_better and pair.difference.mean < 0


@pytest.mark.parametrize(
    "values",
    [
        {"a": [0.5], "b": [0.9]},
        {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.7, 0.8]},
        {"a": [0.5, 0.6], "b": [0.5, 0.6]},
    ],
    ids=["one seed", "the same difference for each seed", "the same numbers"],
)
def test_without_a_spread_nothing_is_called_better(values: dict[str, list[float]]) -> None:
    (pair,) = compare_pairs(values, higher_is_better=True)
    assert pair.p is None and pair.corrected is None and not pair.is_better


def test_holms_correction_never_orders_two_pairs_otherwise() -> None:
    assert correct([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct([0.01, None, 0.9]) == pytest.approx([0.03, None, 1.0])  # None is compared too
    assert correct([]) == []


def test_experiments_with_unlike_seeds_are_not_compared() -> None:
    with pytest.raises(ValueError):
        compare_pairs({"a": [0.5, 0.6], "b": [0.5]}, higher_is_better=True)


def test_the_interval_over_folds_is_wider_because_they_share_rows() -> None:
    values = [0.90, 0.94, 0.92, 0.93, 0.91]
    seeds, folds = Estimate.of(values), Estimate.of(values, overlap=1 / 3)
    assert seeds.half_width is not None and folds.half_width is not None
    assert folds.half_width == pytest.approx(seeds.half_width * (1 + 5 / 3) ** 0.5)
    pair = {"a": [0.80, 0.81, 0.79, 0.83, 0.82], "b": values}
    (seed,), (fold,) = (compare_pairs(pair, True, overlap) for overlap in (0.0, 1 / 3))
    assert seed.p is not None and fold.p is not None and fold.p > seed.p


def test_the_interval_over_rows_is_that_of_clopper_and_pearson() -> None:
    # as scipy.stats.binomtest(348, 359).proportion_ci() has it
    assert interval_of_share(348 / 359, 359) == pytest.approx((0.94583769, 0.98460705))
    assert interval_of_share(0, 359) == pytest.approx((0, 0.01022282))
    assert interval_of_share(1, 359) == pytest.approx((0.98977718, 1))
