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


def ram_by_kernels(image: bytes) -> dict[str, int]:
    """The arena with each set of kernels: optimised ones need scratch beside the activations."""
    from fieldloop.runtime import Model
    from fieldloop.runtime.core import VARIANTS

    model = Model(image)
    return {variant: model.variant_arena_bytes(variant) for variant in VARIANTS}


def kernel_row(by_kernels: dict[str, int]) -> str:
    """What the optimised kernels add, in words; empty when it is nothing."""
    plain = by_kernels["plain"]
    more = [f"{n} with {name}" for name, n in by_kernels.items() if n != plain]
    return f", {', '.join(more)} kernels" if more else ""
