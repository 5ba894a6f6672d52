"""Another result is another digest, whatever the code is written with; and what is not code leaves the digest.

Step folders are made up from all kinds of constructs and changed at random; both versions are run. What differs in its
result and not in its digest would be a wrong reuse.
"""

import ast
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.code import code_of
from ctcore.code.loader import load_file
from ctcore.errors import StepError
from ctcore.step import Call, Step
from tests.helpers.constructs import OTHER, PLAIN, Piece

FOLDERS = int(os.environ.get("CT_EXAMPLES", "300"))
Folder = dict[str, str]


def folder_of(pieces: list[Piece]) -> Folder:
    """The files of a step folder whose step evaluates all pieces; a second step has nothing to do with them."""
    named = [piece.named(f"_{at}") for at, piece in enumerate(pieces)]
    inside = "".join(f"    {one.inside}\n" for one in named if one.inside)
    values = ", ".join(one.value for one in named)
    toy = (
        '"""Toy."""\nfrom ctcore.step import Call, step\n\n'
        + "\n".join(one.top for one in named)
        + '\n@step(level="assay", files=("reads",), outputs={"n": "n.txt"})\ndef counted(call: Call) -> None:\n'
        + f'    """Counts."""\n{inside}    call.out("n").write_text(repr([{values}]))\n'
        + '\n@step(level="assay", files=("reads",), outputs={"n": "n.txt"})\ndef other(call: Call) -> None:\n'
        + '    call.out("n").write_text("2")\n'
        + "\n".join(one.late for one in named)
    )
    return {"toy.py": toy, **{name: text for one in named for name, text in one.files.items()}}


def written(folder: Folder, place: Path) -> Path:
    for name, text in folder.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place / "toy.py"


def ran(folder: Folder, place: Path) -> tuple[str, dict[str, str]] | None:
    """The result of the step, and the digest of each; None where the folder cannot be loaded."""
    path = written(folder, place)
    try:
        steps = {step.name: step for step in load_file(path)}
        digests = {name: code_of(step).digest for name, step in steps.items()}
    except StepError:
        return None
    return (result_of(steps["counted"], place), digests) if "counted" in steps else None


def result_of(step: Step, place: Path) -> str:
    out = place / "out"
    out.mkdir()
    try:
        step.function(Call("A1", "assay", out, {"n": "n.txt"}))
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(place), ".")
    return (out / "n.txt").read_text() if (out / "n.txt").exists() else "nothing"


def changed(rng: random.Random, folder: Folder) -> Folder:
    """One change at random: another number or text, lines swapped, doubled, taken out; names of an import exchanged;
    bodies of two files exchanged."""
    name = rng.choice(sorted(folder))
    lines = folder[name].splitlines()
    at = rng.randrange(len(lines))
    kind = rng.choice(("number", "number", "text", "swap", "double", "out", "names", "files", "operator"))
    if kind == "number":
        places = [n for n, line in enumerate(lines) if re.search(r"\d", re.sub(r"\w*_\d+\w*", "", line))]
        if places:
            at = rng.choice(places)
            lines[at] = re.sub(r"(?<![\w])(\d+)", lambda m: str(int(m[1]) + rng.choice((1, 2))), lines[at], count=1)
    elif kind == "text":
        lines[at] = re.sub(r"'(\w+)'", r"'\1x'", lines[at], count=1)
    elif kind == "swap" and at + 1 < len(lines):
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    elif kind == "double":
        lines.insert(at, lines[at])
    elif kind == "out":
        del lines[at]
    elif kind == "names":
        lines[at] = re.sub(r"import (\w+) as (\w+), (\w+) as (\w+)", r"import \1 as \4, \3 as \2", lines[at])
    elif kind == "operator":
        lines[at] = lines[at].replace("+", "-", 1).replace("*", "+", 1)
    elif kind == "files":
        a, b = rng.choice(sorted(folder)), rng.choice(sorted(folder))
        if "toy.py" not in (a, b):
            return {**folder, a: folder[b], b: folder[a]}
    return {**folder, name: "\n".join(lines) + "\n"}


def test_another_result_is_another_digest(tmp_path: Path) -> None:
    differed = 0
    for seed in range(FOLDERS):
        rng = random.Random(seed)
        pieces = rng.sample(PLAIN + OTHER, rng.choice((1, 1, 2, 3)))
        folder = folder_of(pieces)
        before = ran(folder, tmp_path / f"{seed}")
        assert before is not None, [one.name for one in pieces]
        for turn in range(6):
            other = changed(rng, folder)
            after = ran(other, tmp_path / f"{seed}-{turn}")
            if after is None or after[0] == before[0]:
                continue
            differed += 1
            assert after[1]["counted"] != before[1]["counted"], (
                f"seed {seed}, turn {turn}: {before[0]} → {after[0]}\n"
                + "\n".join(f"--- {name}\n{other[name]}" for name in other if other[name] != folder.get(name))
            )
    assert differed > FOLDERS // 2  # the changes do change


@pytest.mark.parametrize("piece", PLAIN + OTHER, ids=lambda piece: piece.name)
def test_each_construct_is_seen_in_every_number_of_it(tmp_path: Path, piece: Piece) -> None:
    """Each number in the construct, one more: if the result is another, so is the digest."""
    folder = folder_of([piece])
    before = ran(folder, tmp_path / "before")
    assert before is not None
    for turn, other in enumerate(_numbers(folder)):
        after = ran(other, tmp_path / f"{turn}")
        if after is not None and after[0] != before[0]:
            assert after[1]["counted"] != before[1]["counted"], other


def _numbers(folder: Folder) -> Iterator[Folder]:
    for name, text in folder.items():
        for found in re.finditer(r"(?<![\w.])\d+(?!\w)", text):
            yield {**folder, name: text[: found.start()] + str(int(found[0]) + 1) + text[found.end() :]}


def narrow(rng: random.Random, folder: Folder, is_plain: bool) -> Iterator[tuple[str, Folder]]:
    """Changes that are not of the code."""
    toy = folder["toy.py"]
    commented = {name: "# a comment\n" + text if name.endswith(".py") else text for name, text in folder.items()}
    yield "comment", commented
    yield "docstring", {**folder, "toy.py": toy.replace('"""Counts."""', '"""Says it otherwise."""')}
    yield "layout", {**folder, "toy.py": ast.unparse(ast.parse(toy)) + "\n\n"}
    yield "blank", {**folder, "toy.py": toy.replace("\n\n", "\n\n\n")}
    resources = "from ctcore.step import Call, Resources, step\n"
    said = toy.replace("from ctcore.step import Call, step\n", resources)
    said = said.replace('outputs={"n": "n.txt"})', 'outputs={"n": "n.txt"}, resources=Resources(cpus=4))', 1)
    yield "resources", {**folder, "toy.py": said}
    contract = "from ctcore.contract import NotEmpty\nfrom ctcore.step import Call, Output, step\n"
    said = toy.replace("from ctcore.step import Call, step\n", contract)
    said = said.replace('outputs={"n": "n.txt"}', 'outputs={"n": Output("n.txt", NotEmpty())}', 1)
    yield "contract", {**folder, "toy.py": said}
    yield "isort", {**folder, "toy.py": toy.replace("import Call, step", "import step, Call")}
    yield "unused name", {**folder, "toy.py": toy.replace("import Call, step", "import Call, Facts, step")}
    if is_plain:
        yield "other step", {**folder, "toy.py": toy.replace('write_text("2")', 'write_text("3")')}
        yield "order", {**folder, "toy.py": _shuffled(rng, toy)}
        yield "new name", {**folder, "toy.py": toy + "\ndef brand_new():\n    return 1\n"}


def _shuffled(rng: random.Random, text: str) -> str:
    """Functions and classes in another order, behind all that is used when the file is loaded."""
    body = ast.parse(text).body
    imports = [one for one in body if isinstance(one, ast.Import | ast.ImportFrom | ast.If)]
    values = [one for one in body if isinstance(one, ast.Assign | ast.AnnAssign | ast.ClassDef)]
    rest = [one for one in body if isinstance(one, ast.FunctionDef)]
    rng.shuffle(rest)
    return "\n".join(ast.unparse(one) for one in (*imports, *values, *rest)) + "\n"


def test_what_is_not_code_leaves_the_digest_of_every_construct(tmp_path: Path) -> None:
    for seed in range(FOLDERS // 3):
        rng = random.Random(1000 + seed)
        is_plain = seed % 2 == 0
        pieces = rng.sample(PLAIN if is_plain else PLAIN + OTHER, 2)
        if {"docs", "docs by name", "script beside", "by name in globals", "by import_module", "eval"} & {
            one.name for one in pieces
        }:
            continue  # these read docstrings, or all that there is
        folder = folder_of(pieces)
        before = ran(folder, tmp_path / f"{seed}")
        assert before is not None
        for what, other in narrow(rng, folder, is_plain):
            after = ran(other, tmp_path / f"{seed}-{what}")
            assert after is not None, (seed, what, other["toy.py"])
            assert after[0] == before[0], (seed, what)
            names = [one.name for one in pieces]
            assert after[1]["counted"] == before[1]["counted"], (seed, what, names, other["toy.py"])
