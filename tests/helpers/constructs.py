"""Ways in which people write code that a step reaches: small pieces, each with an expression that a step evaluates.

`{u}` is a suffix that tells pieces of one folder apart. `top` stands in the step's file, `files` are siblings; what is
`plain` is followed name by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Piece:
    """One construct. `late`: statements below the step. `inside`: the first lines of the step's function."""

    name: str
    value: str
    top: str = ""
    late: str = ""
    inside: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False

    def named(self, suffix: str) -> "Piece":
        def put(text: str) -> str:
            return text.replace("{u}", suffix)

        files = {put(name): put(text) for name, text in self.files.items()}
        return Piece(self.name, *map(put, (self.value, self.top, self.late, self.inside)), files, self.plain)


PLAIN = (
    Piece("constant", "C{u} + 1", "C{u} = 3\n", plain=True),
    Piece("helper", "h{u}(2)", 'def h{u}(n):\n    """Help."""\n    return n + K{u}\nK{u} = 10\n', plain=True),
    Piece("unused", "1", "def unused{u}():\n    return 5\nSPARE{u} = 7\n", plain=True),
    Piece(
        "class",
        "P{u}().f(4)",
        "class P{u}:\n    scale = 2\n    def f(self, n):\n        return n * self.scale\n",
        plain=True,
    ),
    Piece(
        "inheritance",
        "B{u}().f() + B{u}().g()",
        "class A{u}:\n    def f(self):\n        return 1\nclass B{u}(A{u}):\n    def g(self):\n        return 20\n",
        plain=True,
    ),
    Piece(
        "dataclass",
        "D{u}().x",
        "from dataclasses import dataclass as dc{u}\n@dc{u}\nclass D{u}:\n    x: int = 8\n",
        plain=True,
    ),
    Piece("tuple", "L{u} + R{u} * 10", "L{u}, R{u} = 1, 2\n", plain=True),
    Piece(
        "sibling",
        "s{u}(3)",
        "from ._s{u} import s{u}\n",
        files={"_s{u}.py": "def s{u}(n):\n    return n * F\nF = 4\nZ = 1\n"},
        plain=True,
    ),
    Piece(
        "sibling alias",
        "t{u}() * 2",
        "from ._t{u} import a as t{u}\n",
        files={"_t{u}.py": "def a():\n    return 1\ndef b():\n    return 2\n"},
        plain=True,
    ),
    Piece(
        "sibling module",
        "_m{u}.V + _m{u}.f()",
        "from . import _m{u}\n",
        files={"_m{u}.py": "V = 5\nW = 6\ndef f():\n    return W\n"},
        plain=True,
    ),
    Piece(
        "import inside",
        "i{u}()",
        inside="from ._i{u} import i{u}",
        files={"_i{u}.py": "def i{u}():\n    return 9\n"},
        plain=True,
    ),
    Piece(
        "package",
        "p{u} + q{u}()",
        "from ._p{u} import p{u}\nfrom ._p{u}.mod import q{u}\n",
        files={
            "_p{u}/__init__.py": "p{u} = 1\n",
            "_p{u}/mod.py": "from .deep import d\ndef q{u}():\n    return d * 100\n",
            "_p{u}/deep.py": "d = 3\n",
        },
        plain=True,
    ),
    Piece(
        "re-export",
        "e{u}",
        "from ._e{u} import e{u}\n",
        files={"_e{u}.py": "from ._f{u} import x as e{u}\n", "_f{u}.py": "x = 11\ny = 12\n"},
        plain=True,
    ),
    Piece(
        "equal names",
        "n{u}() + o{u}() * 100",
        "from ._n{u} import f as n{u}\nfrom ._o{u} import f as o{u}\n",
        files={"_n{u}.py": "def f():\n    return 1\n", "_o{u}.py": "def f():\n    return 2\n"},
        plain=True,
    ),
    Piece("library", "json{u}.dumps([1])", "import json as json{u}\nimport math as m{u}\n", plain=True),
    Piece("lambda", "l{u}(2)", "l{u} = lambda n: n + 1\n", plain=True),
    Piece("comprehension", "sum(q{u})", "q{u} = [x * 2 for x in range(4)]\nr{u} = {x: 1 for x in 'ab'}\n", plain=True),
    Piece("default argument", "d{u}()", "BASE{u} = 4\ndef d{u}(n=BASE{u} * 2):\n    return n\n", plain=True),
    Piece(
        "type checking",
        "1 + T{u}",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from os import stat_result\nT{u} = 2\n",
        plain=True,
    ),
    Piece(
        "enum",
        "E{u}.B.value",
        "from enum import Enum as Enum{u}\nclass E{u}(Enum{u}):\n    A = 1\n    B = 2\n",
        plain=True,
    ),
)
OTHER = (
    Piece("filled by key", "G{u}['min']", "G{u} = {}\nG{u}['min'] = 20\n"),
    Piece("filled by update", "sorted(G{u}.items())", "G{u} = {'a': 1}\nG{u}.update(min=20)\n"),
    Piece("filled by append", "G{u}", "G{u} = []\nG{u}.append(1)\nG{u}.append(2)\n"),
    Piece("filled by a loop", "sum(G{u}.values())", "G{u} = {}\nfor k in ('a', 'b'):\n    G{u}[k] = len(G{u}) + 3\n"),
    Piece("filled below the step", "G{u}", "G{u} = {}\n", late="G{u}['late'] = 5\n"),
    Piece(
        "filled in the sibling",
        "G{u}",
        "from ._g{u} import G as G{u}\n",
        files={"_g{u}.py": "G = {}\nG['x'] = 1\nG['y'] = 2\n"},
    ),
    Piece("class attribute", "C{u}.x", "class C{u}:\n    x = 1\nC{u}.x = 2\n"),
    Piece(
        "conditional",
        "k{u}()",
        "import sys as sys{u}\nif sys{u}.version_info > (3,):\n    def k{u}():\n"
        "        return 3\nelse:\n    def k{u}():\n        return 4\n",
    ),
    Piece(
        "try",
        "k{u}()",
        "try:\n    from nowhere_{u} import k{u}\nexcept ImportError:\n    def k{u}():\n        return 5\n",
    ),
    Piece("star", "V{u} + W{u}", "from ._st{u} import *\n", files={"_st{u}.py": "V{u} = 1\nW{u} = 2\n"}),
    Piece("init", "state{u}", "state{u} = 0\ndef init{u}():\n    global state{u}\n    state{u} = 6\ninit{u}()\n"),
    Piece(
        "registry by decorator",
        "REG{u}['one'](1)",
        "from ._reg{u} import REG as REG{u}, register as register{u}\n@register{u}('one')\n"
        "def first{u}(n):\n    return n + 1\n"
        "@register{u}('two')\ndef second{u}(n):\n    return n + 2\n",
        files={
            "_reg{u}.py": "REG = {}\ndef register(name):\n    def put(f):\n        REG[name] = f\n"
            "        return f\n    return put\n"
        },
    ),
    Piece("rebinding", "r{u}", "r{u} = 1\nr{u} = r{u} + 1\nr{u} = r{u} * 3\n"),
    Piece("alias rebound", "b{u}", "a{u} = 1\nb{u} = a{u}\na{u} = 2\n"),
    Piece("set from outside", "_h{u}.V", "from . import _h{u}\n_h{u}.V = 7\n", files={"_h{u}.py": "V = 1\n"}),
    Piece(
        "set from elsewhere",
        "v{u}()",
        "from ._w{u} import mark\nfrom ._h{u} import v as v{u}\n",
        files={
            "_h{u}.py": "box = {'V': 1}\ndef v():\n    return box['V']\n",
            "_w{u}.py": "from . import _h{u}\n_h{u}.box['V'] = 9\nmark = 0\n",
        },
    ),
    Piece("seed", "r{u}.random()", "import random as r{u}\nr{u}.seed(3)\n"),
    Piece(
        "subclasses",
        "[c.n for c in Base{u}.subs]",
        "from ._sb{u} import Base as Base{u}\nclass X{u}(Base{u}):\n    n = 1\nclass Y{u}(Base{u}):\n    n = 2\n",
        files={
            "_sb{u}.py": "class Base:\n    subs = []\n    def __init_subclass__(cls):\n        Base.subs.append(cls)\n"
        },
    ),
    Piece("by name in globals", "globals()['y{u}']()", "def y{u}():\n    return 8\n"),
    Piece(
        "by import_module",
        "importlib{u}.import_module('._im{u}', __package__).V",
        "import importlib as importlib{u}\n",
        files={"_im{u}.py": "V = 4\n"},
    ),
    Piece(
        "getattr of a module",
        "getattr(_ga{u}, 'V' + str(1))",
        "from . import _ga{u}\n",
        files={"_ga{u}.py": "V1 = 2\nV2 = 3\n"},
    ),
    Piece("eval", "eval('z{u} + 1')", "z{u} = 2\n"),
    Piece(
        "decorated",
        "w{u}(3)",
        "from ._de{u} import twice as twice{u}\n@twice{u}\ndef w{u}(n):\n    return n + 1\n",
        files={
            "_de{u}.py": "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(n):\n"
            "        return 2 * f(n)\n    return g\n"
        },
    ),
    Piece(
        "partial",
        "pa{u}()",
        "from functools import partial as partial{u}\ndef add{u}(a, b):\n    return a + b\n"
        "pa{u} = partial{u}(add{u}, 1, b=2)\n",
    ),
    Piece("hidden builtin", "abs(-1)", "def abs(x):\n    return 40 + x\n"),
    Piece("docs", "dd{u}.__doc__", 'def dd{u}():\n    """Read by somebody."""\n'),
    Piece(
        "file beside",
        "Path{u}(__file__).with_name('t{u}.txt').read_text()",
        "from pathlib import Path as Path{u}\n",
        files={"t{u}.txt": "12\n"},
    ),
    Piece(
        "script beside",
        "run{u}()",
        "import runpy\ndef run{u}():\n    from pathlib import Path\n"
        "    return runpy.run_path(str(Path(__file__).parent / 'sc{u}.py'))['V']\n",
        files={"sc{u}.py": "V = 3\n"},
    ),
    Piece(
        "module getattr",
        "lazy{u}",
        inside="from ._lz{u} import lazy{u}",
        files={"_lz{u}.py": "def __getattr__(name):\n    return VALUES[name[:4]]\nVALUES = {'lazy': 5}\n"},
    ),
    Piece(
        "from above",
        "up{u}",
        "from ._q{u} import up{u}\n",
        files={"_q{u}/__init__.py": "from .._above{u} import V as up{u}\n", "_above{u}.py": "V = 6\n"},
    ),
    Piece(
        "base taken on by another file",
        "[c.n for c in Base{u}.subs]",
        "from ._tb{u} import Base as Base{u}\nclass X{u}(Base{u}):\n    n = 1\n",
        files={
            "_tb{u}.py": "from ._sb{u} import Base\n",
            "_sb{u}.py": "class Base:\n    subs = []\n    def __init_subclass__(cls):\n        Base.subs.append(cls)\n",
        },
    ),
    Piece(
        "factory of a default",
        "seen{u}",
        "from dataclasses import dataclass as dc{u}, field as fd{u}\nseen{u} = []\n"
        "def mark{u}():\n    seen{u}.append(3)\n    return 1\n"
        "@dc{u}\nclass D{u}:\n    x: int = fd{u}(default_factory=mark{u})\nmade{u} = D{u}()\n",
    ),
    Piece(
        "sorting key",
        "order{u}",
        "order{u} = []\ndef key{u}(n):\n    order{u}.append(n + 1)\n    return n\n"
        "list{u} = sorted([2, 1], key=key{u})\n",
    ),
    Piece(
        "module as a program",
        "out{u}()",
        "import subprocess, sys\nfrom pathlib import Path\ndef out{u}():\n"
        "    done = subprocess.run([sys.executable, '-m', 'prog{u}'], cwd=Path(__file__).parent,"
        " capture_output=True, text=True)\n    return done.stdout\n",
        files={"prog{u}.py": "print(4)\n"},
    ),
    Piece(
        "block of a script",
        "out{u}()",
        "import subprocess, sys\nfrom pathlib import Path\ndef out{u}():\n"
        "    done = subprocess.run([sys.executable, str(Path(__file__).parent / 'tool{u}.py')], capture_output=True)\n"
        "    return done.stdout\n",
        files={
            "tool{u}.py": "from lib{u} import V\nif __name__ == '__main__':\n    print(V + 2)\n",
            "lib{u}.py": "V = 1\n",
        },
    ),
    Piece("iterator", "list(g{u})", "g{u} = (x for x in [1, 2, 3])\nn{u} = 0\nm{u} = sum(g{u}) if n{u} else 0\n"),
    Piece("iterator of pairs", "list(g{u})", "g{u} = zip([1, 2], [3, 4])\nm{u} = dict(g{u}) if 0 else 0\n"),
    Piece(
        "iterator of a sibling",
        "list(g{u})",
        "from ._it{u} import G as g{u}\nm{u} = list(g{u}) if 0 else []\n",
        files={"_it{u}.py": "G = reversed([1, 2])\n"},
    ),
    Piece(
        "reading that inserts",
        "sorted(d{u})",
        "from collections import defaultdict as dd{u}\nd{u} = dd{u}(list)\nm{u} = d{u}[3] if 0 else 0\n",
    ),
    Piece(
        "order of siblings that run",
        "R{u}",
        "from ._r{u} import R as R{u}\nfrom . import _one{u}\nfrom . import _two{u}\n",
        files={
            "_r{u}.py": "R = []\n",
            "_one{u}.py": "from ._r{u} import R\nR.append(1)\n",
            "_two{u}.py": "from ._r{u} import R\nR.append(2)\n",
        },
    ),
    Piece(
        "order of siblings inside",
        "f{u}()",
        inside="from ._x{u} import f as f{u}\n    from ._y{u} import f as f{u}",
        files={"_x{u}.py": "def f():\n    return 1\n", "_y{u}.py": "def f():\n    return 2\n"},
    ),
    Piece("modules by another name", "s{u}.modules[__name__].V{u}", "import sys as s{u}\nV{u} = 5\n"),
    Piece("docs by name", "getattr(dd{u}, '__doc__')", 'def dd{u}():\n    """Read by name, 3."""\n'),
    Piece("globals by name", "getattr(gg{u}, '__globals__')['V{u}']", "V{u} = 4\ndef gg{u}():\n    return 1\n"),
    Piece("checked types", "T{u}()", "TYPE_CHECKING = True\nif TYPE_CHECKING:\n    def T{u}():\n        return 7\n"),
    Piece(
        "operation on a sibling",
        "log{u}",
        "from ._op{u} import P as P{u}, log as log{u}\nU{u} = P{u} / 'one'\n",
        files={"_op{u}.py": "log = []\nclass Q:\n    def __truediv__(self, n):\n        log.append(n)\nP = Q()\n"},
    ),
    Piece(
        "setter of its own",
        "REG{u}.seen",
        "class Reg{u}:\n    seen = []\n    def setter(self, f):\n        self.seen.append(f())\n        return f\n"
        "REG{u} = Reg{u}()\n@REG{u}.setter\ndef foo{u}():\n    return 3\n",
    ),
    Piece("while", "n{u}", "n{u} = 0\nwhile -9 < n{u} < 5:\n    n{u} += 2\n"),
    Piece("setattr", "S{u}.x", "class S{u}:\n    x = 0\nsetattr(S{u}, 'x', 3)\n"),
    Piece(
        "side effect of an unused sibling",
        "box{u}['n']",
        "from ._bx{u} import box as box{u}\nfrom . import _fx{u}\n",
        files={"_bx{u}.py": "box = {'n': 1}\n", "_fx{u}.py": "from ._bx{u} import box\nbox['n'] = 5\n"},
    ),
)
