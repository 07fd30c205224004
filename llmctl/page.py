"""Pages that open from disk, without network, on a phone, in light and dark."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

PALETTE = ("#3b6fb6", "#c8811f", "#4a9a5b", "#a0569c", "#c0504d", "#5aa6a6", "#8a6d3b", "#6c757d")

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --faint: #8883; --soft: #8881 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17181a } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 62rem; padding: 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--faint) }
.wide { overflow-x: auto } table { border-collapse: collapse } th, td { padding: .2rem .7rem .2rem 0; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr + tr { border-top: 1px solid var(--soft) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem; font-size: .85rem; max-height: 14rem; overflow: auto }
details { margin: .4rem 0 } summary { cursor: pointer } figure { display: inline-block; margin: .5rem 1.5rem .5rem 0 }
figcaption { font-size: .9rem } svg text { fill: currentColor; font-size: 10px } .bar { display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden }
.bar span { color: #fff; font-size: .75rem; padding: .2rem .4rem; white-space: nowrap; overflow: hidden }
"""


def whole_page(title: str, parts: Sequence[str], style: str = "", script: str = "") -> str:
    """A page of these parts, which are HTML; `style` is CSS and `script` JavaScript of its own. The browser is told to load nothing
    from anywhere, and to run no other script."""
    allowed = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    icon = ""
    if script:
        icon = "<link rel='icon' href='data:,'>"  # a served page is asked for one otherwise
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{digest}'; connect-src 'self'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{allowed}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"{icon}<title>{escape(title)}</title><style>{STYLE}{style}</style>"
    )
    end = f"<script>{script}</script>" if script else ""
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}{end}</body></html>\n"


def bar(parts: Sequence[tuple[str, float]], colours: Mapping[str, str] | None = None) -> str:
    """A bar of named shares, which sum to 1 or less, in the order given; `colours` of some names."""
    chosen = dict(zip((name for name, _ in parts), cycle(PALETTE), strict=False)) | dict(colours or {})
    spans = (
        f"<span style='width:{share:.2%};background:{chosen[name]}' title='{escape(name, quote=True)} {share:.1%}'>"
        f"{escape(name)} {share:.0%}</span>"
        for name, share in parts
    )
    return f"<div class='bar'>{''.join(spans)}</div>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"
