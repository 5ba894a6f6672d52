"""What nodes were made from, beside what they would be made from today."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctcore.inputs.resolve import ResolvedInput
from ctcore.snapshot.artifacts import UsedInputs
from ctcore.snapshot.versions import pack
from ctcore.staleness.compare import compare

Sources = dict[int, str]
some_sources = st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from("abc"), max_size=5), min_size=1, max_size=4)


@given(some_sources, st.data())
def test_changed_and_new_and_gone_sources_are_found(today: list[Sources], data: st.DataObject) -> None:
    before = data.draw(
        st.lists(
            st.dictionaries(st.integers(-2, 5), st.sampled_from("abc"), max_size=5),
            min_size=len(today),
            max_size=len(today),
        )
    )
    now, was = [sorted(one.items()) for one in today], [sorted(one.items()) for one in before]
    counts = np.array([len(one) for one in was])
    flat = [pair for one in was for pair in one]
    used = UsedInputs(
        np.cumsum(counts) - counts,
        counts,
        np.array([source for source, _ in flat], np.int32),
        pack([version for _, version in flat])[:, :2] if flat else np.zeros((0, 2), np.uint64),
        (("x", "gone"), ("x", "gone too")),
    )
    owner = np.array([at for at, one in enumerate(now) for _ in one], np.int64)
    source = np.array([s for one in now for s, _ in one], np.int64)
    versions = pack([version for one in now for _, version in one]) if len(owner) else np.zeros((0, 4), np.uint64)
    found = compare(ResolvedInput("reads", "x", "step"), used, np.arange(len(now)), versions, owner, source)  # type: ignore[arg-type]
    changed = {(int(at), int(one)) for at, one in zip(*found.changed[:2], strict=True)}
    came = {(int(at), int(one)) for at, one in zip(*found.came, strict=True)}
    went = {(int(at), int(used.source[edge])) for at, edge in zip(*found.went, strict=True)}
    pairs = [(at, today[at], before[at]) for at in range(len(today))]
    assert changed == {(at, s) for at, n, w in pairs for s in n.keys() & w.keys() if n[s] != w[s]}
    assert came == {(at, s) for at, n, w in pairs for s in n.keys() - w.keys()}
    assert went == {(at, s) for at, n, w in pairs for s in w.keys() - n.keys()}
