"""The commands as they are where a model of the deep tier is stronger than the default one: `python -m … ARGUMENTS`.

The deep rung stands for it, so that a reading through channels may be sent back to it.
"""

from __future__ import annotations

from finllm.cli.main import main
from finllm.desk.desk import Desk


def stronger(_: Desk) -> bool:
    return True


if __name__ == "__main__":
    Desk.stronger = property(stronger)  # type: ignore[assignment, method-assign]
    main()
