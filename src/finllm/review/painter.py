"""The process that draws: reads Vega-Lite specifications as JSON on stdin, writes SVG and PNG as JSON. A script."""

from __future__ import annotations

import base64
import json
import sys


def main() -> None:
    """Draw every `{"svg": spec, "png": spec, "scale": number}` of a list; nothing is fetched."""
    import vl_convert

    drawn: list[dict[str, str]] = []
    for one in json.load(sys.stdin):
        svg = vl_convert.vegalite_to_svg(one["svg"], allowed_base_urls=[])
        png = vl_convert.vegalite_to_png(one["png"], scale=one["scale"], allowed_base_urls=[])
        drawn.append({"svg": svg, "png": base64.b64encode(png).decode()})
    json.dump(drawn, sys.stdout)


if __name__ == "__main__":
    main()
