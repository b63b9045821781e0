"""Learning that means something: a net that knows eight digits is taught the other two."""

from __future__ import annotations

import dataclasses

import pytest
from digits import accuracy, digits_task

from fieldloop.runtime import Learner, LearnerConfig, Model


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("selector", ["tinypropv2", "dense"])
def test_two_new_digits_are_learned_and_eight_kept(selector: str, layers: int) -> None:
    task = digits_task()
    model = Model(task.image)
    new_before, old_before = accuracy(model, task)
    assert new_before <= 0.15 and old_before >= 0.95
    config = LearnerConfig(
        selector=selector,  # type: ignore[arg-type]
        layers=layers,
        memory=100,
        seed=1,
    )
    learner = Learner(model, config)
    learner.run(*task.stream)
    new_after, old_after = accuracy(model, task)
    stats = learner.stats
    share = stats.backward_macs / stats.dense_backward_macs
    print(
        f"{selector} {layers}: new {new_after:.3f} old {old_before:.3f} -> {old_after:.3f}, "
        f"backward {share:.3f}, {stats}"
    )
    assert new_after >= 0.85
    assert old_before - old_after <= 0.06
    assert stats.refused == 0
    assert share == 1.0 if selector == "dense" else share <= 0.3


def test_without_rehearsal_the_old_digits_are_forgotten() -> None:
    task = digits_task()
    model = Model(task.image)
    _, old_before = accuracy(model, task)
    half = len(task.stream[1]) // 2
    config = LearnerConfig(selector="dense", layers=1, replays=0, seed=1)
    Learner(model, config).run(task.stream[0][:half], task.stream[1][:half])
    new_after, old_after = accuracy(model, task)
    assert new_after >= 0.85
    assert old_before - old_after >= 0.1


def test_sparse_with_a_ratio_of_one_is_dense_on_real_data() -> None:
    task, states = digits_task(), []
    one = LearnerConfig(selector="tinyprop", s_min=1, s_max=1, zeta=1, memory=50, seed=3)
    for config in (one, dataclasses.replace(one, selector="dense")):
        learner = Learner(Model(task.image), config)
        learner.run(task.stream[0][:60], task.stream[1][:60])
        states.append(learner.weights())
    for op, (w, b) in states[0].items():
        assert (w == states[1][op][0]).all()
        assert b is not None and (b == states[1][op][1]).all()
