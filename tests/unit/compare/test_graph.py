"""Orders: cycles in words, closure and reduction as properties, the picture."""

from itertools import combinations

import networkx as nx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.compare.comparison import COLUMNS, Comparison
from ecofm.compare.graph import (
    build_order,
    close,
    condense,
    explain_contradictions,
    find_components,
    reduce_edges,
)
from ecofm.compare.hasse import draw_hasse, place_nodes
from ecofm.compare.orderings import expand_ordering

N = 9
EDGES = st.sets(
    st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)).filter(lambda e: e[0] != e[1])
)
DAGS = EDGES.map(lambda edges: {(min(edge), max(edge)) for edge in edges})
TIERS = st.lists(st.integers(0, 5), min_size=2, max_size=9)


def rows_of(edges):
    below = [[] for _ in range(N)]
    for upper, lower in sorted(edges):
        below[upper].append(lower)
    return below


def write(tiers):
    """The ordering of items by tier number."""
    items = [
        [str(item) for item, t in enumerate(tiers) if t == tier] for tier in sorted(set(tiers))
    ]
    return ">".join("=".join(tier) for tier in items)


@settings(max_examples=100)
@given(DAGS)
def test_reduction_keeps_the_closure_and_cannot_be_smaller(edges):
    below = rows_of(edges)
    reduced = reduce_edges(below)
    assert close(reduced) == close(below)
    graph = nx.DiGraph(list(edges))
    found = {(upper, lower) for upper, row in enumerate(reduced) for lower in row}
    assert found == set(nx.transitive_reduction(graph).edges)


@settings(max_examples=100)
@given(EDGES)
def test_knots_are_the_strong_components_and_their_cycles_are_cycles(edges):
    order = build_order([Comparison("ada", str(u), str(v), "left") for u, v in sorted(edges)])
    label = find_components(len(order.names), order.backers)
    graph = nx.DiGraph(list(order.backers))
    components = [c for c in nx.strongly_connected_components(graph) if len(c) > 1]
    assert sorted(map(sorted, order.knots)) == sorted(map(sorted, components))
    assert len(order.explain_cycles()) == len(components)
    assert all(label[u] == label[v] for knot in order.knots for u, v in combinations(knot, 2))
    groups, below = condense(order)
    assert nx.is_directed_acyclic_graph(
        nx.DiGraph((u, v) for u, row in enumerate(below) for v in row)
    )
    assert sorted(node for group in groups for node in group) == list(range(len(order.names)))


@settings(max_examples=100)
@given(TIERS)
def test_an_orderings_comparisons_contain_no_cycle(tiers):
    order = build_order(expand_ordering("ada", write(tiers)))
    assert order.knots == [] and order.explain_cycles() == []
    assert len(order.backers) == sum(a != b for a, b in combinations(tiers, 2))


def test_a_cycle_is_told_with_who_and_which():
    rows = [Comparison("ada", "1", "2", "left"), Comparison("bo", "2", "3", "left"),
            Comparison("cy", "3", "1", "left"), Comparison("cy", "4", "1", "left"),
            Comparison("cy", "3", "2", "tie"), Comparison("cy", "4", "2", "skip")]  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    (sentence,) = explain_contradictions(frame)
    assert sentence == (
        "The majority. These cannot all hold: 1 above 2 (ada), 2 above 3 (bo), 3 above 1 (cy)."
    )
    own = frame.assign(annotator="di")
    assert explain_contradictions(own)[0].startswith("'di' contradicts themselves. These cannot")


def test_larger_knots_name_their_items():
    edges = [(1, 2), (2, 1), (2, 3), (3, 1)]
    rows = [Comparison(f"a{n}", str(u), str(v), "left") for n, (u, v) in enumerate(edges)]
    (sentence,) = build_order([*rows, Comparison("z", "1", "2", "left")]).explain_cycles()
    assert "1 above 2 (a0, z), 2 above 3 (a2), 3 above 1 (a3)" in sentence


def test_each_annotator_has_one_voice_a_pair():
    rows = [Comparison("ada", "1", "2", "left")] * 3 + [Comparison("bo", "2", "1", "left")]
    assert build_order(rows).backers == {}
    assert list(build_order([*rows, Comparison("cy", "2", "1", "left")]).backers) == [(1, 0)]


def test_a_thousand_items_in_a_moment():
    order = build_order(expand_ordering("ada", ">".join(map(str, range(1000)))))
    groups, below = condense(order)
    assert sum(map(len, reduce_edges(below))) == 999 and len(groups) == 1000


def test_the_picture_has_every_item_once_and_none_on_another():
    rows = [*expand_ordering("ada", "3=4>1>0"), *expand_ordering("ada", "7>8")]
    rows += [Comparison("ada", "8", "7b", "left"), Comparison("ada", "7b", "7", "left")]
    order = build_order([*rows, Comparison("c", "$x$", "0", "tie")])
    groups, below = condense(order)
    places = place_nodes(reduce_edges(below))
    assert len(set(places)) == len(places) == len(groups)
    assert all(places[u][1] > places[v][1] for u, row in enumerate(below) for v in row)
    shown = {text.get_text() for text in draw_hasse(order, "order").axes[0].texts}
    assert {"3", "4", "1", "0", r"\$x\$", "7 ⟲ 7b ⟲ 8"} == shown


def test_a_picture_of_too_many_items_is_refused():
    order = build_order(expand_ordering("ada", ">".join(map(str, range(401)))))
    with pytest.raises(ValueError, match="401 items cannot be read"):
        draw_hasse(order, "too many")
