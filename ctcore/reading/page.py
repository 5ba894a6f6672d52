"""⑦ One HTML file that asks nothing of the network and runs nothing. All that comes from data is escaped here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ctcore.reading.looks import LOOKS

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_STATES = "".join(f".{state}{{background:{colour}}}" for state, (colour, _, _) in LOOKS.items())
STYLE = (
    """
:root{color-scheme:light dark;--ink:#14181f;--soft:#525a66;--rule:#e3e6eb;--ground:#f5f6f8;--paper:#fff;--note:#fff6e0}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,Arial,sans-serif}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 22px}
header{padding-top:26px;padding-bottom:14px}
h1{margin:0;font-size:25px;letter-spacing:-.01em}
header p,footer,.lead{color:var(--soft)}
header p{margin:2px 0 0}
footer{padding-bottom:30px;font-size:13px}
section{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:16px 20px 20px;margin:0 0 18px}
h2{margin:0;font-size:17px}
.lead{margin:2px 0 12px;font-size:14px;max-width:90ch}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin-bottom:18px}
.card{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:12px 16px}
.card b{display:block;font-size:24px;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
.wide{overflow:auto;max-height:75vh}
.wide:focus-visible{outline:2px solid #56b4e9;outline-offset:2px}
table{border-collapse:separate;border-spacing:0;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
thead th{position:sticky;top:0;z-index:1;background:var(--paper);color:var(--soft);font-size:12.5px;
 vertical-align:bottom}
th[scope=row]{font-weight:500;white-space:nowrap;background:var(--paper)}
.full{width:100%}
.n{text-align:right;white-space:nowrap}
.words{overflow-wrap:anywhere;white-space:pre-wrap}
.bar{display:flex;height:12px;min-width:260px;border:1px solid #b9c0ca;border-radius:3px;overflow:hidden}
.bar i{display:block}
.bars td{vertical-align:middle}
.s{text-align:center;min-width:46px;border:2px solid var(--paper);padding:2px 6px;font-weight:650}
.lost{color:#ffffff}
.fresh,.failed,.stale,.running{color:#14181f}
.missing,.excluded{color:#525a66}
.key{display:flex;flex-wrap:wrap;gap:6px 20px;margin:0 0 12px;padding:0;list-style:none;font-size:13px;
 color:var(--soft)}
.key b{display:inline-block;width:20px;height:18px;margin-right:6px;border-radius:3px;text-align:center;
 line-height:18px;font-size:12px;outline:1px solid #b9c0ca}
.note{background:var(--note);border-left:4px solid #e69f00;padding:6px 12px;font-size:14px;margin:0 0 12px}
@media (max-width:640px){header,main,footer{padding-left:10px;padding-right:10px}section{padding:12px}
 th,td{padding:4px 6px}.bar{min-width:110px}.words{min-width:240px}
 .matrix th[scope=row]{white-space:normal;overflow-wrap:anywhere;min-width:130px;font-size:12px}
 .matrix th[scope=row]:first-child{position:sticky;left:0}}
@media print{body{background:#fff}.wide{max-height:none}section{break-inside:auto}}
"""
    + _STATES
    + """
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e8eaee;--soft:#a9b1bd;--rule:#323945;--ground:#101318;--paper:#191e26;--note:#3a2e0d}
.missing{background:#3a424f;color:#c5ccd6}.excluded{background:var(--paper);color:var(--soft)}
.lost{background:#fff;color:#000}}
"""
)


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    html: str


Content = str | int | Markup


def html(content: Content) -> str:
    return content.html if isinstance(content, Markup) else escape(str(content).replace("\0", "\ufffd"), quote=True)


def joined(parts: Iterable[Content]) -> Markup:
    return Markup("".join(map(html, parts)))


def element(name: str, content: Content = "", **attributes: str) -> Markup:
    """An element; `class_` becomes `class`."""
    given = "".join(f' {key.rstrip("_")}="{html(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{html(content)}</{name}>")


def page(title: str, subtitle: str, body: Iterable[Content], foot: str) -> str:
    head = f'<title>{html(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>'
    header = element("header", joined([element("h1", title), element("p", subtitle)]))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{head}\n</head>\n<body>\n{header.html}\n<main>\n{joined(body).html}\n</main>\n"
        f"{element('footer', foot).html}\n</body>\n</html>\n"
    )


def cards(values: Sequence[tuple[Content, str]]) -> Markup:
    found = [
        element("div", joined([element("b", value), element("span", label)]), class_="card") for value, label in values
    ]
    return element("div", joined(found), class_="cards")


def section(title: str, lead: str, *content: Content) -> Markup:
    return element("section", joined([element("h2", title), element("p", lead, class_="lead"), *content]))


def note(text: str) -> Markup:
    return element("p", text, class_="note") if text else Markup("")


def table(heads: Sequence[Content], rows: Iterable[Iterable[Markup]], class_: str = "full") -> Markup:
    """Rows of cells; the heads of columns of numbers are marked as in their cells by the caller."""
    top = joined(head if isinstance(head, Markup) else element("th", head, scope="col") for head in heads)
    lines = joined(element("tr", joined(row)) for row in rows)
    whole = element("table", joined([element("thead", element("tr", top)), element("tbody", lines)]), class_=class_)
    return element("div", whole, class_="wide", tabindex="0")


def number(value: int) -> Markup:
    return element("td", f"{value:,}", class_="n")


def head(text: Content, class_: str = "n") -> Markup:
    return element("th", text, scope="col", class_=class_)


def row_head(text: Content) -> Markup:
    return element("th", text, scope="row")


def key() -> Markup:
    """What the colours and signs mean."""
    found = [
        element("li", joined([element("b", sign, class_=state), f"{state}: {meaning}"]))
        for state, (_, sign, meaning) in LOOKS.items()
    ]
    return element("ul", joined(found), class_="key")


def bar(counts: Sequence[tuple[str, int]]) -> Markup:
    """One line cut into the shares of the states."""
    total = sum(n for _, n in counts) or 1
    found = [
        element("i", class_=state, style=f"width:{100 * n / total:.3f}%", title=f"{n} {state}") for state, n in counts
    ]
    said = ", ".join(f"{n} {state}" for state, n in counts)
    return element("div", joined(found), class_="bar", role="img", title=said, **{"aria-label": said})
