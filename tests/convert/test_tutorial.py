"""The tutorial's table: its printed figures by its own rules, and the exact counts beside them."""

from __future__ import annotations

import numpy as np
import pytest

from spikeport.convert import count_synops, simulate, tutorial_table
from spikeport.convert.errors import InputError
from spikeport.convert.tutorial import printed_run

from .event_loop import digits_like


def test_the_printed_table_follows_from_its_own_rules() -> None:
    """Source: the tutorial's printed table and its power cell: 6.5936 mW; 0.659 mW at the 10 pJ of its text."""
    table = tutorial_table(*printed_run())
    rows = [row for row in table.rows if row.exact_synops is not None]
    assert [row.fanout_prev for row in rows] == [72, 288, 144, 32, 10]
    assert [row.n_in for row in rows] == [0, 791_398, 749_759, 234_082, 14_567]
    assert [row.synops for row in rows] == [0, 227_922_624, 107_965_296, 7_490_624, 145_670]
    assert [row.events_routed for row in rows] == [row.synops for row in rows]
    assert sum(row.synops for row in table.rows) == 343_524_214
    assert rows[1].synops_per_s == pytest.approx(4.3747e8, rel=1e-4)
    assert {row.time_window for row in table.rows} == {521}
    assert round(table.power_mw_as_coded, 4) == 6.5936  # 100 pJ
    assert round(table.power_mw_as_written, 3) == 0.659  # 10 pJ


def test_the_first_layer_counts_what_the_caller_types_in() -> None:
    """Source: 262,628 recorded events at a fan-out of 72 are the 18.9 million synops that the printed table lacks."""
    net, trace = printed_run()
    first = tutorial_table(net, trace, n_input=262_628).rows[0]
    assert (first.n_in, first.synops) == (262_628, 18_909_216)


def test_pools_and_flatten_route_events_but_do_no_synops() -> None:
    others = [row for row in tutorial_table(*printed_run()).rows if row.exact_synops is None]
    assert [(row.layer, row.events_routed, row.synops) for row in others] == [
        ("pool behind conv1", 791_398, 0),
        ("pool behind conv2", 749_759, 0),
        ("pool behind conv3", 234_082, 0),
        ("flatten", 234_082, 0),
    ]


def test_the_tutorials_table_follows_its_own_rule_and_stands_next_to_the_exact_counts() -> None:
    net = digits_like()
    trace = simulate(net, np.random.default_rng(0).poisson(0.3, (20, 1, 20, 20)))
    table = tutorial_table(net, trace)
    rows = {row.layer: row for row in table.rows}
    assert [row.fanout_prev for row in table.rows if row.exact_synops is not None] == [72, 36, 8, 3]
    assert table.rows[0].events_routed == 0  # the tutorial's caller passed no input events
    for before, row in zip(table.rows, table.rows[1:], strict=False):
        assert row.n_in == before.n_out
        assert row.events_routed == row.fanout_prev * row.n_in
        assert row.synops_per_s == pytest.approx(row.synops / 20 * 1000)
    exact = count_synops(net, trace)
    assert [row.exact_synops for row in table.rows if row.exact_synops is not None] == [x.synops for x in exact.layers]
    assert rows["conv3"].synops > exact.layers[1].synops  # full fan-out at every border
    assert table.power_mw_as_coded == pytest.approx(10 * table.power_mw_as_written)
    assert any(f"{exact.total:,}" in note for note in table.notes)


def test_the_tutorials_table_is_of_one_recording_through_a_chain() -> None:
    net = digits_like()
    with pytest.raises(InputError, match="one recording"):
        tutorial_table(net, simulate(net, np.ones((2, 2, 1, 20, 20))))
