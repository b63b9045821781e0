"""What learning takes: the arena of the plan, and the learner's own memory on top."""

from __future__ import annotations


def learner_bytes(image: bytes) -> int:
    """The learner's own RAM with the settings of `fieldloop learn`, by the C core's sizes."""
    from fieldloop.runtime import Model, learner_sizes
    from fieldloop.train.field import CONFIG

    return learner_sizes(Model(image), CONFIG).total_bytes


def learn_row(arena: int, learner: int) -> tuple[str, str]:
    """The table's row."""
    return "RAM to learn", f"{arena + learner} bytes, {learner} of them the learner's own"
