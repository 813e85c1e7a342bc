"""Narrative stress tests of a portfolio by cooperating reasoning agents, with every number traceable to its source."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'finllm' has no attribute {name!r}")
    from importlib.metadata import version  # when asked for: it takes as long to import as the command line itself

    return version("finllm")
