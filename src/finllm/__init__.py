"""Narrative stress tests of a portfolio by cooperating reasoning agents, with every number traceable to its source.

For programs: `from finllm import Session`, the session behind every door. It is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finllm.sessions.session import Session

    __version__: str

__all__ = ["Session", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Session":
        from finllm.sessions.session import Session

        return Session
    if name != "__version__":
        raise AttributeError(f"module 'finllm' has no attribute {name!r}")
    from importlib.metadata import version  # when asked for: it takes as long to import as the command line itself

    return version("finllm")
