"""Benchmark of the broker beside the rules and routers that it replaces."""
