"""Prices of contracts: options, forwards and bonds as functions of their terms, for one value or many at once."""
