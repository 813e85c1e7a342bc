"""Narrative stress tests of a portfolio by cooperating reasoning agents, with every number traceable to its source."""

from importlib.metadata import version

__version__ = version("finllm")
__all__ = ["__version__"]
