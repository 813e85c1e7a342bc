"""Makes optimisers answer the same on every machine: one BLAS thread, and their chatter silenced."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


_alone = threading.RLock()
"""Both the number of BLAS threads and the warning filters are the process's: threads that change them take turns."""


@contextmanager
def steady() -> Iterator[None]:
    """One BLAS thread, and silence from optimisers whose result is judged by what it forecasts.

    With another number of threads sums round otherwise, a GARCH's optimiser stops elsewhere, and the weight of a member
    moves by 0.03. Threads take turns.
    """
    with _alone, warnings.catch_warnings(), _threads().limit(limits=1, user_api="blas"):
        warnings.simplefilter("ignore")
        yield


@cache
def _threads() -> ThreadpoolController:
    import numpy.linalg  # noqa: F401 - only libraries that are loaded by now can be limited
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
