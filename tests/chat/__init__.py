"""Tests of the analyst's chat."""
