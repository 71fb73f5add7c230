"""Table 7 to the letter, exact totals, and every step's task set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches.stages import METHODS, Stage, StagePlan, assign, continual, extend, interleave, multitask
from ernie2.errors import ConfigError
from tiny import FOUR

MASKING, CAPITALS, RELATION, REORDERING = FOUR
LEVELS = {MASKING: "token", CAPITALS: "token", RELATION: "token", REORDERING: "sentence"}


def as_dicts(stages):
    return [dict(stage.iterations) for stage in stages]


# ---- stages


def test_continual_multi_task_learning_is_table_7():
    assert as_dicts(assign(FOUR)) == [
        {MASKING: 20_000},
        {MASKING: 10_000, CAPITALS: 30_000},
        {MASKING: 10_000, CAPITALS: 10_000, RELATION: 40_000},
        {MASKING: 10_000, CAPITALS: 10_000, RELATION: 10_000, REORDERING: 50_000},
    ]
    assert [stage.introduced for stage in assign(FOUR)] == [(name,) for name in FOUR]


def test_multi_task_learning_is_one_stage_of_all():
    assert as_dicts(multitask(FOUR)) == [dict.fromkeys(FOUR, 50_000)]
    assert multitask(FOUR)[0].introduced == FOUR


def test_continual_learning_is_one_task_a_stage():
    assert as_dicts(continual(FOUR)) == [{name: 50_000} for name in FOUR]


def test_several_tasks_may_enter_in_one_stage():
    # 3 stages, so u = N / 4
    stages = assign(["a", ["b", "c"], "d"], 40)
    assert as_dicts(stages) == [{"a": 20}, {"a": 10, "b": 30, "c": 30}, {"a": 10, "b": 10, "c": 10, "d": 40}]
    assert [stage.introduced for stage in stages] == [("a",), ("b", "c"), ("d",)]


def test_every_task_may_have_steps_of_its_own():
    assert as_dicts(assign(["a", "b"], {"a": 30, "b": 7})) == [{"a": 20}, {"a": 10, "b": 7}]


def test_what_does_not_divide_goes_to_the_largest_remainders():
    # u = 50 / 3 of weights 2, 1: 33.3 and 16.7
    assert as_dicts(assign(["a", "b"], 50)) == [{"a": 33}, {"a": 17, "b": 50}]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5_000), st.lists(st.integers(1, 3), min_size=1, max_size=6), st.sampled_from(sorted(METHODS)))
def test_totals_are_exact_for_any_number_and_grouping(steps, sizes, method):
    names = iter("abcdefghijklmnopqr")
    order = [[next(names) for _ in range(size)] for size in sizes]
    stages = METHODS[method](order, steps)
    for name in sum(order, []):  # noqa: RUF017
        assert sum(stage.iterations_of(name) for stage in stages) == steps
    assert sorted(sum((list(stage.introduced) for stage in stages), [])) == sorted(sum(order, []))  # noqa: RUF017
    if method == "continual_multitask":
        u = steps / (len(order) + 1)
        for entered, group in enumerate(order):
            for name in group:
                got = [stage.iterations_of(name) for stage in stages]
                expected = [0] * entered + [(entered + 2) * u] + [u] * (len(order) - entered - 1)
                assert got == pytest.approx(expected, abs=1)


# ---- a task that arrives later


def test_a_task_that_arrives_after_table_7_is_replayed_with_what_assign_gives_old_tasks():
    longer = extend(assign(FOUR), "distance", steps=50_000)
    assert longer[:4] == assign(FOUR)
    assert dict(longer[4].iterations) == {**dict.fromkeys(FOUR, 10_000), "distance": 50_000}
    assert longer[4].introduced == ("distance",)


def test_an_old_task_gets_the_same_unit_in_every_extension():
    stages = extend(extend(assign(["a", "b"], 30), "c", 40), "d", 50)
    # u of a and b: 30 / 3; of c, after three stages: 40 / 4
    assert as_dicts(stages)[2:] == [{"a": 10, "b": 10, "c": 40}, {"a": 10, "b": 10, "c": 10, "d": 50}]


@pytest.mark.parametrize(("method", "old"), [("multitask", {"a": 15, "b": 15}), ("continual", {"a": 10, "b": 10})])
def test_stages_of_other_methods_get_the_same_fraction(method, old):
    assert dict(extend(METHODS[method](["a", "b"], 30), "c", 8)[-1].iterations) == {**old, "c": 8}


def test_a_task_with_few_iterations_is_replayed_at_least_once():
    assert dict(extend(assign(["a", "b"], {"a": 30, "b": 1}), "c", 8)[-1].iterations) == {"a": 10, "b": 1, "c": 8}


def test_replay_is_what_the_caller_says_and_0_trains_the_new_task_alone():
    assert dict(extend(assign(["a", "b"], 30), "c", 8, replay=3)[-1].iterations) == {"a": 3, "b": 3, "c": 8}
    assert extend(assign(["a", "b"], 30), "c", 8, replay=0)[-1] == Stage((("c", 8),), ("c",))


@pytest.mark.parametrize(
    ("task", "steps", "replay", "told"),
    [("b", 8, None, "stage 2"), ("c", 0, None, "at least one"), ("c", 8, -1, "replay=-1")],
)
def test_an_extension_that_makes_no_sense_is_refused(task, steps, replay, told):
    with pytest.raises(ConfigError, match=told):
        extend(assign(["a", "b"], 30), task, steps, replay)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 6), st.integers(1, 4))
def test_the_default_replay_is_the_last_share_of_an_old_task(steps, tasks, more):
    names = "abcdef"[:tasks]
    stages = assign(tuple(names), steps)
    for new in range(more):
        stages = extend(stages, f"new{new}", steps)
    for name in names[:-1]:
        # a share rounded up in one stage is rounded the other way in another
        assert stages[-1].iterations_of(name) == pytest.approx(max(1, stages[tasks - 1].iterations_of(name)), abs=1)


def test_a_task_named_twice_is_refused():
    with pytest.raises(ConfigError, match="'a' twice"):
        assign(["a", ["b", "a"]])


# ---- interleave


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(sum))
def test_every_prefix_is_within_one_step_of_proportional(counts):
    laid, total = interleave(counts), sum(counts)
    assert np.bincount(laid, minlength=len(counts)).tolist() == counts
    for task, count in enumerate(counts):
        done = np.cumsum(laid == task)
        assert (np.abs(done - np.arange(1, total + 1) * count / total) < 1).all()


def test_a_small_spread_reads_as_expected():
    assert interleave([2, 1]).tolist() == [0, 1, 0]
    assert interleave([3, 3]).tolist() == [0, 1, 0, 1, 0, 1]
    assert interleave([0, 2]).tolist() == [1, 1]


# ---- plans


def last_stage():
    return assign(FOUR, 500)[-1]  # 100, 100, 100, 500


def counts_of(plan):
    return dict(zip(plan.tasks, plan.active.sum(axis=0).tolist(), strict=True))


@pytest.mark.parametrize("combine", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_every_task_gets_its_iterations_in_every_stage(number, combine):
    stage = assign(FOUR, 500)[number]
    plan = StagePlan(stage, LEVELS, combine)
    assert counts_of(plan) == dict(stage.iterations) == plan.iterations_before(len(plan))
    assert all(plan.main_task(step) in plan.active_tasks(step) for step in range(len(plan)))


def test_without_combining_every_step_has_one_task():
    plan = StagePlan(last_stage(), LEVELS, combine=False)
    assert len(plan) == 800
    assert {len(plan.active_tasks(step)) for step in range(800)} == {1}


def test_token_tasks_are_attached_to_the_sentence_task_except_a_tenth_of_token_only_steps():
    plan = StagePlan(last_stage(), LEVELS)
    assert len(plan) == 530  # 500 of reordering and 10 token-only steps of each token task
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    for name in FOUR[:3]:
        assert sets.count((name,)) == 10
        assert sum(name in tasks and REORDERING in tasks for tasks in sets) == 90


def test_without_a_sentence_task_the_others_are_attached_to_the_token_task_with_most_iterations():
    stage = assign(FOUR, 500)[2]  # 100, 100, 400
    plan = StagePlan(stage, LEVELS)
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    assert len(plan) == 420
    assert sets.count((MASKING,)) == sets.count((CAPITALS,)) == 10
    assert sets.count((RELATION,)) >= 40
    # no step of the reserved tenth takes attached tasks: 360 steps are left for 90 iterations of each
    assert sum(MASKING in tasks and RELATION in tasks for tasks in sets) == 90


def test_iterations_beyond_the_steps_of_main_tasks_become_token_only_steps():
    stage = Stage((("a", 100), ("s", 30)))
    plan = StagePlan(stage, {"a": "token", "s": "sentence"})
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    assert (sets.count(("a", "s")), sets.count(("a",)), len(plan)) == (30, 70, 100)


def test_main_tasks_without_attached_tasks_get_none():
    stage = Stage((("a", 100), ("open", 30), ("closed", 50)))
    plan = StagePlan(
        stage, {"a": "token", "open": "sentence", "closed": "sentence"}, without_attached=frozenset({"closed"})
    )
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    assert (sets.count(("closed",)), sets.count(("a", "open")), sets.count(("a",))) == (50, 30, 70)


def test_tasks_are_not_attached_to_tasks_without_a_common_corpus():
    stage = Stage((("a", 100), ("b", 100), ("s", 80)))
    levels = {"a": "token", "b": "token", "s": "sentence"}
    plan = StagePlan(stage, levels, disjoint=frozenset({("s", "a")}))
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    assert (sets.count(("a",)), sets.count(("b", "s")), sets.count(("b",))) == (100, 80, 20)
    assert not any({"a", "s"} <= set(tasks) for tasks in sets)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["token", "sentence"]), st.integers(1, 80)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
    st.booleans(),
)
def test_plans_keep_every_bound(tasks, token_only_share, combine, close_first):
    names = "abcde"[: len(tasks)]
    levels = {name: level for name, (level, _) in zip(names, tasks, strict=True)}
    stage = Stage(tuple((name, count) for name, (_, count) in zip(names, tasks, strict=True)))
    closed = frozenset([name for name in names if levels[name] == "sentence"][: int(close_first)])
    plan = StagePlan(stage, levels, combine, token_only_share, closed)
    sets = [plan.active_tasks(step) for step in range(len(plan))]
    assert counts_of(plan) == dict(stage.iterations)
    for name, (level, count) in zip(names, tasks, strict=True):
        alone = sets.count((name,))
        if level == "token":
            assert alone >= int(token_only_share * count)
        # at most one sentence task a step, and it is the main task
        hosted = np.array([plan.main_task(step) == name for step in range(len(plan))])
        proportional = np.arange(1, len(plan) + 1) * hosted.sum() / len(plan)
        assert (np.abs(np.cumsum(hosted) - proportional) < 1).all()
    for step, tasks_here in enumerate(sets):
        sentence = [name for name in tasks_here if levels[name] == "sentence"]
        assert sentence in ([], [plan.main_task(step)])
        assert len(tasks_here) == 1 or plan.main_task(step) not in closed
    # see the test of every prefix below for attached iterations
    shared = [tasks_here for tasks_here in sets if len(tasks_here) > 1]
    if not combine:
        assert not shared


def test_a_plan_depends_on_nothing_but_its_stage():
    one, two = StagePlan(last_stage(), LEVELS), StagePlan(last_stage(), LEVELS)
    assert (one.active == two.active).all()
    assert (one.main_tasks == two.main_tasks).all()
    assert one.iterations_before(0) == dict.fromkeys(FOUR, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 400), st.sampled_from([0.0, 0.1, 0.3]))
def test_every_prefix_of_the_main_task_has_its_share_of_attached_iterations(steps, token_only_share):
    plan = StagePlan(assign(FOUR, steps)[-1], LEVELS, token_only_share=token_only_share)
    hosted = [set(plan.active_tasks(step)) for step in range(len(plan)) if plan.main_task(step) == REORDERING]
    for name in FOUR[:3]:
        attached = np.array([name in tasks for tasks in hosted])
        proportional = np.arange(1, len(hosted) + 1) * attached.sum() / len(hosted)
        assert (np.abs(np.cumsum(attached) - proportional) < 1).all()


@pytest.mark.parametrize(("steps", "replay"), [(10**12, None), (10, 10**12), (10**12, 10**12)])
def test_an_extension_too_long_to_lay_out_is_refused_at_once(steps, replay):
    with pytest.raises(ConfigError, match="the limit is 4,000,000"):
        extend(assign(("a", "b"), 12), "c", steps, replay)
