"""What runs on dated episodes are scored from: a reading of every account, and nothing that came after it."""

import pytest
from benchmarks.episodes.accounts import accounts
from benchmarks.run_bands import heeded, kept, key_of, share_heeded, windows


def test_every_account_has_a_reading_whose_probabilities_add_to_one() -> None:
    found = kept()
    assert [key_of(one) for one in (*accounts(), *windows()) if key_of(one) not in found] == []
    for reading in found.values():
        for call in reading["factors"].values():
            assert sum(call["direction"].values()) == pytest.approx(1.0, abs=0.001)


def test_the_market_heeds_what_is_read_no_more_than_chance_so_that_no_band_does() -> None:
    """Were a reader heeded beyond chance, what it reads would belong into the bands (docs/design/0033-bands.md)."""
    assert heeded() == (31, 70)
    assert share_heeded() == 0.0
