"""Write docs/channels.md from the table of transmission channels, or check that it is up to date.

python -m docs.channels --check | --write
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from finllm.tools.channels import NOTHING, channel_table
from finllm.tools.data.factors import FACTOR_IDS

PAGE = Path(__file__).resolve().parent / "channels.md"
MEND = "run 'make format' (or 'python -m docs.channels --write') and commit docs/channels.md"
HEAD = """\
# Transmission channels

By which ways an event reaches markets: the closed list that events are read through, what each channel does to each
factor (sign and relative size: `+++` is the factor that the channel is about, `+` moves as a rule, but little), why,
and where it was seen. The table is `tools/channels/table.yaml`; its signs are held against what the factors did in
these episodes (`tests/tools/channels/`). A factor that is not named is not moved. This page is written by `make
format`.

A factor of your own (copper, EUR/USD, a sector) needs one column, in the scenario: see [scenario.md](scenario.md).

"""


def page() -> str:
    """The text of docs/channels.md."""
    header = ["channel", *FACTOR_IDS]
    lines = [header, ["---"] * len(header)]
    lines += [[f"`{name}`", *(_sign(row.moves, factor) for factor in FACTOR_IDS)]
              for name, row in channel_table().items() if not name.startswith(NOTHING)]  # fmt: skip
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    told = "\n".join(f"- `{name}`: {row.means} *{row.why}* Seen in: {', '.join(row.episodes)}."
                     for name, row in channel_table().items() if not name.startswith(NOTHING))  # fmt: skip
    return f"{HEAD}{table}\n\n{told}\n"


def _sign(moves: Mapping[str, int], factor: str) -> str:
    size = moves.get(factor, 0)
    return ("+" if size > 0 else "−") * abs(size)


def main(argument: str) -> None:
    """`--write` writes the page; anything else checks it. SystemExit naming the mend where it is out of date."""
    wanted = page()
    if argument == "--write":
        PAGE.write_text(wanted, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        sys.exit(f"docs/channels.md is not what the table of channels says; {MEND}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
