"""The page of a report: one file that asks nothing of the network. What comes from data is escaped here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root{--ink:#111827;--soft:#4b5563;--faint:#6b7280;--rule:#e5e7eb;--paper:#fff;--ground:#f4f6f9;--blue:#2563eb}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header{background:#0f2742;color:#fff}
header>div,main,footer{max-width:1120px;margin:0 auto;padding:0 24px}
header>div{padding-top:30px;padding-bottom:64px}
h1{margin:0;font-size:27px;font-weight:650;letter-spacing:-.01em}
header p{margin:5px 0 0;color:#b8c7d9}
main{margin-top:-40px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px;margin-bottom:22px}
.card,section{background:var(--paper);border:1px solid var(--rule);border-radius:10px;
 box-shadow:0 1px 2px rgba(15,39,66,.05)}
.card{padding:14px 16px}
.card b{display:block;font-size:25px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
section{padding:20px 22px 22px;margin-bottom:22px}
h2{margin:0;font-size:18px;font-weight:650}
h2+p{margin:3px 0 15px;color:var(--soft);font-size:14px;max-width:80ch}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid var(--rule);text-align:left;white-space:nowrap}
thead th{color:var(--soft);font-weight:600;font-size:12.5px;vertical-align:bottom}
tbody tr:last-child td{border-bottom:0}
.n{text-align:right}
th.n{text-align:right}
.g,th.g{text-align:center;min-width:64px}
small{display:block;font-size:12px;font-weight:400;color:var(--faint)}
.bar{display:block;width:100%;min-width:52px;height:4px;margin:5px 0 3px;border-radius:2px;background:#e5e7eb;
 overflow:hidden}
.bar i{display:block;height:100%;background:var(--blue)}
.d0{background:#f3f5f8;color:#4b5563}.d1{background:#93b8f5;color:#0b2451}.d2{background:#1d4ed8;color:#fff}
.dm{background:#fff;color:#9ca3af}
td.g{border:2px solid #fff}
.key{display:flex;flex-wrap:wrap;gap:8px 18px;margin-top:12px;color:var(--soft);font-size:13px}
.key i{display:inline-block;width:15px;height:15px;margin-right:6px;border-radius:3px;vertical-align:-2px;
 border:1px solid #dfe3e8}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
svg{display:block;width:100%;min-width:760px;height:auto}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:#4b5563}
footer{padding-bottom:36px;color:var(--faint);font-size:13px}
@media print{body{background:#fff}.card,section{box-shadow:none;break-inside:avoid}}
"""


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already; everything else is escaped before it gets into a page."""

    html: str


Content = str | int | Markup


def html_of(content: Content) -> str:
    return content.html if isinstance(content, Markup) else escape(str(content), quote=True)


def joined(parts: Iterable[Content]) -> Markup:
    return Markup("".join(html_of(part) for part in parts))


def element(name: str, content: Content = "", **attributes: str | float) -> Markup:
    """An element; `class_` and `stroke_width` become `class` and `stroke-width`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{html_of(content)}</{name}>")


def page(title: str, subtitle: str, body: Content, foot: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n'
        "</head>\n<body>\n"
        f"<header><div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div></header>\n"
        f"<main>\n{html_of(body)}\n</main>\n<footer>{escape(foot)}</footer>\n</body>\n</html>\n"
    )


def cards(values: Sequence[tuple[Content, str]]) -> Markup:
    found = [
        element("div", joined([element("b", value), element("span", label)]), class_="card") for value, label in values
    ]
    return element("div", joined(found), class_="cards")


def section(title: str, lead: str, *content: Content) -> Markup:
    return element("section", joined([element("h2", title), element("p", lead), *content]))


def table(heads: Sequence[Content], rows: Iterable[Sequence[Markup]], classes: Sequence[str]) -> Markup:
    """`rows` are of cells made by `cell`; `classes` are those of the heads."""
    top = joined(element("th", head, class_=name) for head, name in zip(heads, classes, strict=True))
    lines = joined(element("tr", joined(row)) for row in rows)
    whole = element("table", joined([element("thead", element("tr", top)), element("tbody", lines)]))
    return element("div", whole, class_="wide")


def cell(content: Content, class_: str = "") -> Markup:
    return element("td", content, class_=class_) if class_ else element("td", content)


def bar(share: float) -> Markup:
    """A small horizontal bar for a fraction."""
    width = round(100 * min(1.0, max(0.0, share)))
    return element("span", element("i", style=f"width:{width}%"), class_="bar")


def key(entries: Sequence[tuple[str, str]]) -> Markup:
    """A legend: (class of the swatch, what it means)."""
    found = [element("span", joined([element("i", class_=name), meaning])) for name, meaning in entries]
    return element("div", joined(found), class_="key")
