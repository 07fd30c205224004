"""The look of the report, beside that of all pages."""

STYLE = """
nav { position: sticky; top: 0; z-index: 1; background: var(--paper); overflow-x: auto }
nav { white-space: nowrap; padding: .4rem 0; font-size: .9rem; border-bottom: 1px solid var(--faint) }
nav a { margin-right: 1rem }
a { color: inherit }
section { scroll-margin-top: 3rem }
details { scroll-margin-top: 3rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
.how { opacity: .8; max-width: 46rem }
.note { border-left: 4px solid #d55e00; padding-left: .6rem }
.plot svg { display: block; width: 100%; min-width: min(var(--width), 40rem); max-width: var(--width) }
.plot svg * { stroke-linejoin: round }
.findings { padding-left: 1.2rem }
.wrong::marker { content: "✗ "; color: #d55e00 }
.look::marker { content: "› " }
.findings a { text-decoration-color: var(--faint) }
td.better { color: #009e73; font-weight: 600 }
td.worse { color: #d55e00; font-weight: 600 }
table.judged td, table.judged th { white-space: normal; text-align: left; vertical-align: top; min-width: 4.5rem }
table.text td { white-space: normal; overflow-wrap: anywhere; text-align: left; vertical-align: top; min-width: 8rem }
.log { margin: .15rem 0; font-size: .85rem; overflow-wrap: anywhere; white-space: pre-wrap }
.warning { border-left: 4px solid #d55e00; padding-left: .5rem }
.lineage text { font-size: 12px; opacity: .8 }
.lineage .name { font-size: 14px; font-weight: 600; opacity: 1 }
.lineage rect { fill: var(--soft); stroke: currentColor; stroke-opacity: .4 }
.lineage .bad rect { stroke: #d55e00; stroke-opacity: 1; stroke-width: 2 }
.lineage .at-work rect { stroke: #0072b2; stroke-opacity: 1; stroke-width: 2 }
.lineage .absent rect, .lineage .outside rect { stroke-dasharray: 5 4; fill: none }
dt { font-size: .8rem; opacity: .7; margin-top: .4rem }
dd { margin: 0 }
dd pre { margin: .1rem 0 }
p, summary, li, h1, h3, dt { overflow-wrap: anywhere }
"""
