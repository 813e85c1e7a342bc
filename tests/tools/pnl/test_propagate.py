"""Propagation: conditional means against a direct solve, what is refused, and the fat-tailed alternative."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import History, history
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.propagate import Covariance, checked, contradictions, mahalanobis, propagate
from finllm.tools.pnl.sizes import FactorView
from finllm.tools.pnl.vine import fat_tailed

AS_OF = dt.date(2018, 12, 31)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)


def past(*names: str) -> History:
    return history([FACTORS[name] for name in names], MARKET, AS_OF)


def joint(*names: str) -> Covariance:
    return Joint(FactorView(FACTORS, MARKET, AS_OF), names, 21).covariance


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12), shocked=st.integers(1, 11))
def test_conditional_moments_are_those_of_a_direct_solve(seed: int, n: int, shocked: int) -> None:
    random = np.random.default_rng(seed)
    shocked = min(shocked, n - 1)
    mixed = random.normal(size=(n, 2 * n))
    units = 10.0 ** random.integers(-2, 3, n)  # returns beside basis points
    matrix = np.outer(units, units) * (mixed @ mixed.T)
    names = [f"F{at}" for at in range(n)]
    covariance = checked(names, matrix)
    moves = random.normal(size=shocked) * units[:shocked]
    found = propagate(dict(zip(names, moves, strict=False)), covariance)
    first, cross, second = matrix[:shocked, :shocked], matrix[shocked:, :shocked], matrix[shocked:, shocked:]
    scale = units[shocked:]
    assert found.means / scale == pytest.approx(cross @ np.linalg.solve(first, moves) / scale, rel=1e-10, abs=1e-10)
    residual = second - cross @ np.linalg.solve(first, cross.T)
    assert found.residual / np.outer(scale, scale) == pytest.approx(
        residual / np.outer(scale, scale), rel=1e-8, abs=1e-8
    )
    assert found.mahalanobis == pytest.approx(np.sqrt(moves @ np.linalg.solve(first, moves)), rel=1e-10)
    assert found.others == tuple(names[shocked:])


def test_a_shocks_size_given_the_others_is_its_regression_residual() -> None:
    covariance = joint("EQUITY_US", "OIL_WTI", "CREDIT_BAA_AAA")
    shocks = {"EQUITY_US": -0.2, "OIL_WTI": 0.1}
    found = propagate(shocks, covariance)
    implied = propagate({"OIL_WTI": 0.1}, covariance)
    at = implied.others.index("EQUITY_US")
    expected = (-0.2 - implied.means[at]) / np.sqrt(implied.residual[at, at])
    assert found.given_others["EQUITY_US"] == pytest.approx(expected)
    assert found.implied["EQUITY_US"] == pytest.approx(implied.means[at])


def test_shocks_that_contradict_each_other_are_named() -> None:
    covariance = checked(("A", "B"), np.array([[1.0, 0.95], [0.95, 1.0]]))
    against, along = {"A": 2.0, "B": -2.0}, {"A": 2.0, "B": 2.0}
    assert set(contradictions(against, propagate(against, covariance), covariance)) == {"A", "B"}
    assert contradictions(along, propagate(along, covariance), covariance) == {}


def test_singular_shocks_are_refused_by_name() -> None:
    covariance = checked(("A", "B", "C"), np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]]))
    with pytest.raises(InputError, match="shocks of A, B cannot be told apart"):
        propagate({"A": 1.0, "B": 1.0}, covariance)
    with pytest.raises(InputError, match="cannot be told apart"):
        mahalanobis({"A": 1.0, "B": 1.0}, covariance)
    assert propagate({"A": 1.0}, covariance).means == pytest.approx([1.0, 0.2])


def test_an_indefinite_covariance_is_refused_or_repaired_and_says_how_far() -> None:
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    with pytest.raises(InputError, match="not positive semi-definite") as refused:
        checked(("A", "B", "C"), bad)
    assert "repair" in refused.value.fix
    repaired = checked(("A", "B", "C"), bad, repair=True)
    assert np.linalg.eigvalsh(repaired.matrix)[0] >= -1e-8
    assert np.diag(repaired.matrix) == pytest.approx(np.ones(3))
    assert 0.05 < repaired.repaired < 0.5
    assert repaired.repaired == pytest.approx(np.linalg.norm(repaired.matrix - bad) / np.linalg.norm(bad))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[1.0]], "has shape"),
        ([[1.0, np.nan], [np.nan, 1.0]], "not finite"),
        ([[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([[1.0, 0.0], [0.0, 0.0]], "the variance of B is not positive"),
    ],
)
def test_a_covariance_that_is_none_is_refused(matrix: list[list[float]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked(("A", "B"), np.array(matrix))


@pytest.mark.parametrize(("shocks", "says"), [({"GOLD": 0.1}, "no row"), ({"EQUITY_US": float("nan")}, "not finite")])
def test_a_shock_that_cannot_be_propagated_is_refused(shocks: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        propagate(shocks, joint("EQUITY_US", "OIL_WTI"))


def test_the_vine_keeps_the_direction_and_is_wider_in_the_tail_than_the_gaussian() -> None:
    shared, shock = past("EQUITY_US", "OIL_WTI", "CREDIT_BAA_AAA"), {"EQUITY_US": -0.2}
    fat = fat_tailed(shock, shared, 21, draws=2000, seed=3)
    straight = propagate(shock, joint(*shared.names))
    assert fat.others == straight.others
    credit = fat.others.index("CREDIT_BAA_AAA")
    assert fat.centres[credit] > 0 < straight.means[credit]
    spread = np.diff(np.quantile(fat.draws, [0.005, 0.995], axis=0), axis=0)[0]
    assert spread[credit] > 3 * 2 * 2.576 * np.sqrt(straight.residual[credit, credit])
    again = fat_tailed(shock, shared, 21, draws=2000, seed=3)
    assert np.array_equal(fat.draws, again.draws)


def test_a_vine_needs_a_history() -> None:
    with pytest.raises(InputError, match="a vine copula needs 100 moves"):
        fat_tailed({"EQUITY_US": -0.1}, past("EQUITY_US", "VIX", "CREDIT_BAA_AAA"), 21, draws=10, seed=0)
    with pytest.raises(InputError, match="no history for a vine copula"):
        fat_tailed({"GOLD": 0.1}, past("EQUITY_US", "OIL_WTI"), 21, draws=10, seed=0)
    with pytest.raises(InputError, match="a vine copula needs 3 factors"):
        fat_tailed({"EQUITY_US": -0.1}, past("EQUITY_US", "OIL_WTI"), 21, draws=10, seed=0)
