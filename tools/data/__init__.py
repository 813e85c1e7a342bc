"""Market data, portfolios, scenarios and factors: files read and checked, none of it past `as_of`."""
