"""Seconds by stage of a call."""

import time

from nnunet_livseg.core.clock import stage, stage_clock, watched_stages


def test_stages_add_up_and_inner_ones_count_for_the_outer():
    with stage_clock() as seconds:
        for _ in range(2):
            with stage("outer"), stage("inner"):
                time.sleep(0.02)
        with stage("other"):
            pass
    with stage("after"):
        pass
    assert list(seconds) == ["outer", "other"]
    assert 0.04 <= seconds["outer"] < 1 and seconds["other"] < 0.02


def test_a_clock_inside_another_has_its_own_stages():
    with stage_clock() as outer, stage("read"), stage_clock() as inner, stage("write"):
        pass
    assert list(outer) == ["read"] and list(inner) == ["write"]


def test_who_watches_is_told_of_every_stage_that_counts_when_it_starts():
    told = []
    with watched_stages(told.append), stage_clock():
        with stage("outer"), stage("inner"):
            assert told == ["outer"]
        with stage("other"):
            pass
    with stage_clock(), stage("after"):
        pass
    assert told == ["outer", "other"]
