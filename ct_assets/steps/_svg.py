"""Plots of the report as shapes of SVG: sharp at every size, and the same bytes for the same data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._page import Part

WIDTH = 1060
SCALE = ((0xF1, 0xF5, 0xFB), (0x9E, 0xC1, 0xF2), (0x3B, 0x78, 0xDE), (0x15, 0x3F, 0x8F), (0x0B, 0x1F, 0x4B))
RULE, BLUE = "var(--rule)", "#2563eb"


def heatmap(names: Sequence[str], bins: Sequence[tuple[str, int, int]], depths: Sequence[Sequence[float]]) -> Part:
    """One row a name, one column a stretch of the genome, coloured by depth; `depths` are rows of columns."""
    left, row, top = _margin(names), max(7, min(22, 640 // max(1, len(names)))), 4
    wide = (WIDTH - left - 4) / max(1, len(bins))
    most = max((value for values in depths for value in values), default=0.0) or 1.0
    drawn: list[Part] = []
    for line, (name, values) in enumerate(zip(names, depths, strict=True)):
        y = top + line * row
        if row >= 11:
            drawn.append(_text(left - 8, y + row / 2 + 4, _cut(name), "end"))
        for column, value in enumerate(values):
            chrom, start, end = bins[column]
            tip = f"{name}, {chrom}:{start + 1}-{end}: {value:.1f}×"
            drawn.append(_box(left + column * wide, y, wide + 0.3, row - 1, colour(value / most), tip))
    bottom = top + len(names) * row
    drawn += _bin_labels(bins, left, wide, bottom + 15)
    drawn += _scale(left, bottom + 27, most)
    return _svg(bottom + 56, drawn, "Mean depth by assay and stretch of the genome")


def lollipops(contigs: Mapping[str, int], points: Sequence[tuple[str, int, float, str]]) -> Part:
    """A point at each place of the genome: (contig, position, fraction, what it is)."""
    left, top, height = 44, 12, 170
    lengths = {name: contigs[name] for name in contigs if any(point[0] == name for point in points)}
    total, starts = 0, dict[str, int]()
    for name, length in lengths.items():
        starts[name], total = total, total + length
    per_base = (WIDTH - left - 14) / max(1, total)
    drawn = [*_grid(left, top, height)]
    for name, start in starts.items():
        x = left + start * per_base
        drawn.append(_line(x, top, x, top + height, RULE))
        drawn += _ticks(name, lengths[name], x, per_base, top + height)
    for chrom, position, share, what in points:
        x, y = left + (starts[chrom] + position) * per_base, top + height * (1 - share)
        drawn.append(_line(x, top + height, x, y, "#9ec1f2", 2))
        drawn.append(_shape("circle", tip=what, cx=_n(x), cy=_n(y), r=5, fill=BLUE, stroke="#fff", stroke_width=1.5))
    return _svg(top + height + 40, drawn, "Frequency of the alternative allele along the genome")


def colour(share: float) -> str:
    """From almost white (0) over blue to almost black (1)."""
    place = min(1.0, max(0.0, share)) * (len(SCALE) - 1)
    low = min(int(place), len(SCALE) - 2)
    mixed = (a + (b - a) * (place - low) for a, b in zip(SCALE[low], SCALE[low + 1], strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def _bin_labels(bins: Sequence[tuple[str, int, int]], left: float, wide: float, y: float) -> Iterator[Part]:
    """Positions along one contig; of several contigs, their names where they begin, if there is room."""
    contigs = {chrom for chrom, _, _ in bins}
    every = max(1, len(bins) // 8)
    free = 0.0
    for column, (chrom, start, _) in enumerate(bins):
        x = left + column * wide
        begins = column == 0 or bins[column - 1][0] != chrom
        wanted = begins if len(contigs) > 1 else column % every == 0
        if wanted and x >= free:
            label = chrom if len(contigs) > 1 else f"{chrom}:{start + 1:,}" if column == 0 else f"{start + 1:,}"
            yield _text(x, y, _cut(label), "start")
            free = x + 7 * len(_cut(label)) + 8


def _scale(left: float, y: float, most: float) -> Iterator[Part]:
    for step in range(40):
        yield _box(left + step * 4, y, 4.3, 9, colour(step / 39))
    yield _text(left, y + 22, "0×", "start")
    yield _text(left + 160, y + 22, f"{most:.1f}×", "end")
    yield _text(left + 172, y + 9, "mean depth", "start")


def _grid(left: float, top: float, height: float) -> Iterator[Part]:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + height * (1 - share)
        yield _line(left, y, WIDTH - 14, y, RULE)
        yield _text(left - 8, y + 4, f"{share:.2f}", "end")


def _ticks(name: str, length: int, x: float, per_base: float, y: float) -> Iterator[Part]:
    """The contig's name, and round positions along it where there is room for them."""
    yield _text(x, y + 32, f"{_cut(name)} (bp)", "start")
    if length * per_base < 260:
        return
    every = 10 ** (len(str(length)) - 1)
    every = every // 2 if length // every < 5 else every
    for place in range(0, length + 1, max(1, every)):
        yield _line(x + place * per_base, y, x + place * per_base, y + 4, "#9ca3af")
        yield _text(x + place * per_base, y + 16, f"{place:,}", "middle")


def _margin(names: Sequence[str]) -> int:
    return min(290, 18 + round(6.3 * max((len(_cut(name)) for name in names), default=0)))


def _cut(text: str, most: int = 42) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _box(x: float, y: float, width: float, height: float, fill: str, tip: str | None = None) -> Part:
    return _shape("rect", tip=tip, x=_n(x), y=_n(y), width=_n(width), height=_n(height), fill=fill)


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1) -> Part:
    return _shape("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), stroke=stroke, stroke_width=width)


def _text(x: float, y: float, text: str, anchor: str) -> Part:
    return _shape("text", text=text, x=_n(x), y=_n(y), text_anchor=anchor)


def _shape(name: str, tip: str | None = None, text: str | None = None, **attributes: str | float) -> Part:
    """`stroke_width` becomes `stroke-width`; a tip is shown where the mouse points."""
    said: dict[str, Any] = {key: value for key, value in (("tip", tip), ("text", text)) if value is not None}
    return {"name": name, "at": {key.replace("_", "-"): value for key, value in attributes.items()}, **said}


def _svg(height: float, shapes: Sequence[Part], title: str) -> Part:
    return {"drawing": {"width": WIDTH, "height": _n(height), "shapes": shapes, "title": title}}


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
