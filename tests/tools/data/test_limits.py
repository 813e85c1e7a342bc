"""Limits files: what would check nothing, or something else than was meant, is refused in plain words with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.factors import factor_table
from finllm.tools.data.limits import Limits, load_limits

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "limits"
FACTORS = tuple(factor_table())
LIBRARY = ("Input should", "Value error", "valid string", "Field required", "Extra inputs", "pydantic")


def read(tmp_path: Path, text: str) -> Limits:
    path = tmp_path / "limits.yaml"
    path.write_text(text, encoding="utf-8")
    return load_limits(path, FACTORS)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, text)
    assert refusal.value.exit_code == 2
    assert not any(word in refusal.value.message for word in LIBRARY)
    return refusal.value.message


def test_every_kind_of_limit_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, "version: 1\nloss_by_factor: {oil_wti: 1e5}\ntotal_loss: 1_000_000\nes_975_1d: 5\n"
                           "coverage: 0.9\nrestricted: ['ON', 'NO']\n")  # fmt: skip
    assert (found.total_loss, found.es_975_1d, found.coverage) == (1_000_000, 5, 0.9)
    assert found.holds("on")
    assert not found.allow_all
    assert Limits(version=1, restricted=["A"]).allow_all


@pytest.mark.parametrize(("text", "says"), [
    ("version: 2\n", "limits.yaml:1: field 'version': 2 is not a version that this finllm reads; write 1"),
    ("version: true\n", "limits.yaml:1: field 'version': True is no version; write 1"),
    ("loss_by_factor: {}\n", "limits.yaml:1: field 'version': is not there; add it"),
    ("version: 1\nrestricted: [AAPL, NO]\n", "field 'restricted.1': NO is read as yes or no; write it in quotes: 'NO'"),
    ("version: 1\nrestricted:\n- 0700\n", "limits.yaml:3: field 'restricted.0': 0700 is read as a number; "
                                           "write it in quotes: '0700'"),
    ("version: 1\nloss_by_position:\n  ON: 5\n", "limits.yaml:3: field 'loss_by_position.ON': ON is read as yes or no"),
    ("version: 1\nrestricted: AAPL\n", "limits.yaml:2: field 'restricted': is not a list"),
    ("version: 1\nloss_by_sector: 5\n", "limits.yaml:2: field 'loss_by_sector': is not a mapping"),
    ("version: 1\ntotal_los: 5\n", "limits.yaml:2: field 'total_los': is no field of this; did you mean 'total_loss'?"),
    ("version: 1\ncoverage: 95\n", "limits.yaml:2: field 'coverage': '95' is not at most 1"),
    ("version: 1\nvar_975_1d: -5\n", "field 'var_975_1d': '-5' is not above 0"),
    ("version: 1\nvar_975_1d: .inf\n", "'.inf' is not a finite number"),
    ("version: 1\nloss_by_factor:\n  EQUITY: 5\n", "limits.yaml:3: field 'loss_by_factor.EQUITY': 'EQUITY' is no "
                                                   "factor; did you mean 'EQUITY_US'?"),
    ("version: 1\nloss_by_factor:\n  XYZZY: 5\n", "'XYZZY' is no factor; factors are EQUITY_US, "),
    ("version: 1\nloss_by_position: {aapl: 5, AAPL: 6}\n", "field 'loss_by_position.AAPL': is the same name as 'aapl'"),
    ("version: 1\nloss_by_factor: {VIX: 1}\nloss_by_factor: {VIX: 9}\n", "limits.yaml:3: not YAML: the key "
                                                                        "'loss_by_factor' stands twice"),
])  # fmt: skip
def test_what_would_not_do_what_was_meant_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


@settings(max_examples=200, deadline=None)
@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.sampled_from(["loss_by_factor", "restricted", "coverage", "each", "NO", "VIX", "x"]), inner, max_size=3)),
    max_leaves=8,
))  # fmt: skip
def test_whatever_is_written_is_read_or_refused_in_plain_words(
    tmp_path_factory: pytest.TempPathFactory, data: object
) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("limits")
    text = yaml.safe_dump({"version": 1, **(data if isinstance(data, dict) else {"restricted": data})})
    said = "limits.yaml:"
    try:
        read(folder, text)
    except InputError as error:
        said = error.message
    assert "limits.yaml:" in said
    assert not any(word in said for word in LIBRARY)


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside the project")
@pytest.mark.parametrize(("name", "says"), [
    ("dup.yaml", "dup.yaml:7: not YAML: the key 'loss_by_factor' stands twice"),
    ("dup2.yaml", "dup2.yaml:4: not YAML: the key 'EQUITY_US' stands twice"),
    ("norway.yaml", "write it in quotes: 'ON'"),
    ("typo.yaml", "'EQUITY' is no factor; did you mean 'EQUITY_US'?"),
])  # fmt: skip
def test_the_shared_cases_are_refused_as_their_table_says(name: str, says: str) -> None:
    with pytest.raises(InputError, match="limits") as refusal:
        load_limits(CASES / name, FACTORS)
    assert says in refusal.value.message
