"""Pictures whose bytes depend on the data only: no clock, no versions, no settings of who runs the step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
INK, MUTED, RULE = "#1f2937", "#6b7280", "#d1d5db"
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed")

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


@contextmanager
def picture(path: Path, inches: tuple[float, float]) -> Iterator["Axes"]:
    """One set of axes to draw on; written as a PNG at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The defaults and not `matplotlibrc`: a user's own colours and fonts would be in the picture.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.add_subplot()
        # Matplotlib writes its version into the PNG as "Software", and with another version equal data would give other
        # bytes.
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
