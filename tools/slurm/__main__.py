"""The command: python -m tools.slurm up|down|status|hold DIR, and start|stop|kill|crash DIR PIECE."""

import argparse
import signal
import sys
from pathlib import Path

from tools.slurm.cluster import Cluster, NoSlurm
from tools.slurm.settings import Shape


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    cluster = Cluster(asked.folder)
    try:
        return asked.do(cluster, asked) or 0
    except NoSlurm as why:
        print(f"slurm sandbox: {why}", file=sys.stderr)
        return 1


def up(cluster: Cluster, asked: argparse.Namespace) -> None:
    """Start the cluster; print what a shell needs to use it."""
    cluster.up(_shape(asked))
    print(f"export SLURM_CONF={cluster.places.conf}", flush=True)


def hold(cluster: Cluster, asked: argparse.Namespace) -> None:
    """Start the cluster, and remove it when standard input ends: also when the other end of it was killed."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        up(cluster, asked)
        sys.stdin.read()
    finally:
        cluster.down(remove=True)


def down(cluster: Cluster, asked: argparse.Namespace) -> None:
    """End its jobs and stop it. What accounting knows is kept, unless --remove is said."""
    cluster.down(asked.remove)


def status(cluster: Cluster, asked: argparse.Namespace) -> int:
    """Which pieces run. Exit code 0: all of them, 1: not all, 3: there is no cluster in the folder."""
    if cluster.shape is None:
        print(f"no sandbox in {cluster.folder}")
        return 3
    state = cluster.state()
    for piece, pid in state.items():
        print(f"{piece:<10} {f'process {pid}' if pid else 'down'}")
    if state["slurmctld"]:
        print(cluster.ask("sinfo").stdout + cluster.ask("squeue").stdout, end="")
    return int(not all(state.values()))


def piece(cluster: Cluster, asked: argparse.Namespace) -> int:
    """One of start, stop, kill and crash."""
    pieces = list(cluster.state()) if cluster.shape else []
    allowed = cluster.shape.names() if cluster.shape and asked.command == "crash" else pieces
    if asked.piece not in allowed:
        raise NoSlurm(f"no piece {asked.piece!r} in {cluster.folder}; there are: {', '.join(allowed) or 'none'}")
    getattr(cluster, asked.command)(asked.piece)
    return 0


def _shape(asked: argparse.Namespace) -> Shape | None:
    said = {name: getattr(asked, name) for name in vars(Shape()) if getattr(asked, name) is not None}
    return Shape(**said) if said else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.slurm", description="A private Slurm cluster in a folder.")
    commands = parser.add_subparsers(dest="command", required=True)
    for do in (up, down, status, hold):
        command = commands.add_parser(do.__name__, help=do.__doc__)
        command.set_defaults(do=do)
        command.add_argument("folder", type=Path)
        if do is down:
            command.add_argument("--remove", action="store_true", help="delete the folder too")
        if do in (up, hold):
            for name, value in vars(Shape()).items():
                command.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}")
    for name in ("start", "stop", "kill", "crash"):
        command = commands.add_parser(name, help=getattr(Cluster, name).__doc__)
        command.set_defaults(do=piece)
        command.add_argument("folder", type=Path)
        command.add_argument("piece")
    return parser


if __name__ == "__main__":
    sys.exit(main())
