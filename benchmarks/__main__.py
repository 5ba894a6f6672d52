"""`python -m benchmarks [NAME…] [--quick] [--json]`: each subject in a process of its own, then one table."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from benchmarks.measure import ONCE, Row, apart, machine, table
from benchmarks.subjects import SUBJECTS, measure


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"subjects (default: all): {', '.join(SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: proves that all runs, measures little")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(SUBJECTS)):
        parser.error(f"no subject {', '.join(unknown)}; subjects: {', '.join(SUBJECTS)}")
    if given.quick:
        os.environ[ONCE] = "1"
    rows: list[Row] = []
    for name in given.names or SUBJECTS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += apart(measure, name, given.quick)
    if given.json:
        print(json.dumps({"machine": machine(), "rows": [row.as_json() for row in rows]}, indent=2, ensure_ascii=False))
    else:
        print(f"{machine()}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
