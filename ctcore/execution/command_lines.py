"""Which programs a command runs, from its arguments or a line of shell, without running it."""

import shlex
from collections.abc import Iterator, Sequence

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
PLUMBING = SHELLS | frozenset(
    "env cat cp mv rm ln ls mkdir rmdir touch chmod echo printf true false test [ sleep".split()  # noqa: SIM905
)
"""Programs whose version changes no byte that they give."""
PROBES = frozenset({"ldconfig", "uname", "lscpu", "nproc", "sysctl", "fc-list", "gcc", "cc", "ld", "objdump"})
"""What libraries start to find out where they are."""
INTERPRETERS = frozenset("Rscript perl python julia node ruby java make lua tclsh guile".split())  # noqa: SIM905
"""Programs that start others because somebody wrote so."""
_SEPARATORS = frozenset("|&;()")


def commands(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """The commands that a command runs: those of a shell's `-c`, the one after `env`, or itself."""
    name = words[0].rpartition("/")[2] if words else ""
    if name == "env":
        at = next((at for at, word in enumerate(words) if at and "=" not in word and word[:1] != "-"), len(words))
        yield from commands(words[at:])
    elif name in SHELLS and len(words) > 2 and words[1].startswith("-") and words[1].endswith("c"):
        yield from shell_commands(words[2])
    elif words:
        yield words


def shell_commands(text: str) -> Iterator[Sequence[str]]:
    """The simple commands of a line of shell. Parts that cannot be parsed are skipped."""
    lexer = shlex.shlex(text.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in [*lexer, ";"]:
            if set(word) <= _SEPARATORS:
                yield from commands(words)
                words = []
            elif words or "=" not in word.partition("/")[0]:  # not the variable that goes before a command
                words.append(word)
    except ValueError:
        return
