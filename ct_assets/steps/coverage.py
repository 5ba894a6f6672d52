"""cohort: the coverage of all assays → coverage_matrix. Who has too little, and where."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ctcore.contract import NotEmpty, Table
from ctcore.errors import InputError
from ctcore.step import Call, Facts, Output, Resources, Source, step

from ._plots import picture
from ._tables import write_tsv

if TYPE_CHECKING:
    import pandas as pd

BIN = ["chrom", "start", "end"]
MATRIX = Table(
    columns={"chrom": "text", "start": "integer", "end": "integer"},
    ranges={"start": (0, float("inf")), "end": (1, float("inf"))},
    unique=("chrom", "start"),
    others="real",
)
MEMBERS = Table(
    columns={"assay": "text", "specimen": "text", "patient": "text", "mean_depth": "real"},
    ranges={"mean_depth": (0, float("inf"))},
    unique=("assay",),
)


@step(
    level="cohort",
    inputs={"alignment": "alignment_qc"},
    columns=("patient.id", "specimen.id", "assay.id"),
    outputs={
        "matrix": Output("coverage_matrix.tsv", MATRIX),
        "members": Output("members.tsv", MEMBERS, preview=True),
        "plot": Output("coverage_matrix.png", NotEmpty(), preview=True),
    },
    resources=Resources(cpus=1, memory_gb=2.0, minutes=60),
    kinds=("pandas",),
    group="cohort",
)
def coverage_matrix(call: Call) -> Facts:
    """Mean depth of every assay in every stretch of the genome."""
    sources = sorted(call.many("alignment"), key=lambda source: source.entity)
    matrix = _matrix(sources)
    matrix.to_csv(call.out("matrix"), sep="\t", float_format="%.4f", lineterminator="\n", encoding="utf-8")
    widths = matrix.index.get_level_values("end") - matrix.index.get_level_values("start")
    means = matrix.mul(widths, axis=0).sum() / widths.to_numpy().sum()
    rows = [
        (
            name,
            *(source.column(column) for column in ("specimen.id", "patient.id")),
            float(mean),
        )
        for name, source, mean in zip(matrix.columns, sources, means, strict=True)
    ]
    write_tsv(call.out("members"), ("assay", "specimen", "patient", "mean_depth"), rows)
    _draw(call.out("plot"), matrix)
    return {"assays": matrix.shape[1], "bins": matrix.shape[0], "mean_depth": round(float(means.mean()), 4)}


def _matrix(sources: Sequence[Source]) -> "pd.DataFrame":
    """Bins down, assays across. InputError where two assays are cut into different bins."""
    import pandas as pd

    if not sources:
        raise InputError("no assay of this cohort is aligned; register one, or see who is excluded and why")
    columns = {source.column("assay.id"): _depths(source["coverage"]) for source in sources}
    first, *others = columns
    for other in others:
        if not columns[first].index.equals(columns[other].index):
            raise InputError(
                f"{first} and {other} are cut into different bins: another genome or another `bins`; "
                "make alignment_qc of both again"
            )
    return pd.DataFrame(columns)


def _depths(path: Path) -> "pd.Series":
    import pandas as pd

    # Otherwise pandas makes a number of contig 1, and of a contig NA a missing value, even where it is told to read
    # text.
    table = pd.read_csv(path, sep="\t", dtype={"chrom": str}, keep_default_na=False)
    return pd.Series(table["mean_depth"].to_numpy(), index=pd.MultiIndex.from_arrays([table[c] for c in BIN]))


def _draw(path: Path, matrix: "pd.DataFrame") -> None:
    height = min(9.0, 1.1 + 0.26 * matrix.shape[1])
    with picture(path, (6.4, height)) as axes:
        image = axes.imshow(matrix.to_numpy().T, aspect="auto", cmap="viridis", interpolation="nearest", vmin=0)
        if matrix.shape[1] <= 30:
            axes.set_yticks(range(matrix.shape[1]), list(matrix.columns), fontsize=7)
        axes.set_xlabel("stretch of the genome")
        axes.spines[:].set_visible(False)
        figure = axes.figure
        figure.colorbar(image, ax=axes, label="mean depth", fraction=0.05, pad=0.02)
