"""assay: raw reads → reads_qc. The door of the pipeline: what is damaged or mixed up stops here."""

from collections.abc import Sequence
from pathlib import Path

from ctcore.contract import NotEmpty, Table
from ctcore.step import Call, Facts, Output, Resources, step

from ._fastq import Tally, tally_pairs
from ._plots import COLOURS, picture
from ._tables import Value, fraction, write_row, write_tsv

QC_TABLE = Table(
    columns={
        "read_pairs": "integer",
        "bases": "integer",
        "mean_length": "real",
        "gc_fraction": "real",
        "q30_fraction": "real",
        "n_fraction": "real",
    },
    ranges={
        "read_pairs": (1, float("inf")),
        "bases": (1, float("inf")),
        "gc_fraction": (0, 1),
        "q30_fraction": (0, 1),
        "n_fraction": (0, 1),
    },
)
CYCLES = Table(
    columns={"mate": "integer", "cycle": "integer", "bases": "integer", "mean_quality": "real"},
    ranges={"mate": (1, 2), "mean_quality": (0, 93)},
    unique=("mate", "cycle"),
)


@step(
    level="assay",
    files=("fastq_1", "fastq_2"),
    outputs={
        "table": Output("reads_qc.tsv", QC_TABLE, preview=True),
        "per_cycle": Output("per_cycle_quality.tsv", CYCLES),
        "plot": Output("quality.png", NotEmpty(), preview=True),
    },
    resources=Resources(cpus=1, memory_gb=1.0, minutes=120),
    kinds=("fastq",),
    group="assay_steps",
)
def reads_qc(call: Call) -> Facts:
    """Paired reads, checked to the last byte and measured: yield, GC, quality by cycle."""
    tallies = tally_pairs(call.file("fastq_1"), call.file("fastq_2"))
    measured = _measured(tallies)
    write_row(call.out("table"), measured)
    columns = ("mate", "cycle", "bases", "mean_quality")
    write_tsv(call.out("per_cycle"), columns, _cycles(tallies))
    _draw(call.out("plot"), tallies)
    return {name: measured[name] for name in ("read_pairs", "bases", "gc_fraction", "q30_fraction")}


def _measured(tallies: Sequence[Tally]) -> dict[str, int | float]:
    bases = sum(tally.bases for tally in tallies)
    called = bases - sum(tally.n for tally in tallies)
    return {
        "read_pairs": tallies[0].reads,
        "bases": bases,
        "mean_length": fraction(bases, sum(tally.reads for tally in tallies)),
        "gc_fraction": fraction(sum(tally.gc for tally in tallies), called),
        "q30_fraction": fraction(sum(tally.q30 for tally in tallies), bases),
        "n_fraction": fraction(bases - called, bases),
    }


def _cycles(tallies: Sequence[Tally]) -> list[tuple[Value, ...]]:
    return [
        (mate, cycle, bases, fraction(total, bases))
        for mate, tally in enumerate(tallies, 1)
        for cycle, (bases, total) in enumerate(tally.by_cycle, 1)
    ]


def _draw(path: Path, tallies: Sequence[Tally]) -> None:
    with picture(path, (5.6, 2.6)) as axes:
        for mate, tally in enumerate(tallies, 1):
            means = [fraction(total, bases) for bases, total in tally.by_cycle]
            axes.plot(range(1, len(means) + 1), means, color=COLOURS[mate - 1], label=f"mate {mate}", lw=1.6)
        axes.axhline(30, color="#9ca3af", lw=0.8, ls=(0, (4, 3)))
        axes.set(xlabel="cycle", ylabel="mean quality", ylim=(0, 45))
        axes.margins(x=0.01)
        axes.legend(frameon=False, loc="lower left", ncols=2)
