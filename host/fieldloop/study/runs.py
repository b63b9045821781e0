"""One run: a stream of a seed, learned with one setting, then tested. A function of a job."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.runtime import Learner, LearnerConfig, Model, Step, learner_sizes
from fieldloop.study.prepare import Prepared, load
from fieldloop.study.streams import PHASES, phases_of, stream_of


@dataclass(frozen=True, slots=True)
class Job:
    """What is run. `key` names it among all results: other settings are another key."""

    task: str
    mode: str
    selector: str
    rung: str
    seed: int
    samples: int
    tested: int
    config: LearnerConfig | None  # None: float32 training
    rate: float
    place: str  # of the prepared task
    fingerprint: str  # of it and of the C core
    numeric: str = "int8"

    @property
    def key(self) -> str:
        facts = asdict(self)
        facts.pop("place")
        facts["phases"] = PHASES
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@functools.lru_cache(maxsize=2)
def _prepared(place: str) -> Prepared:
    return load(Path(place))


def run_job(job: Job) -> dict[str, Any]:
    """The result as one JSON object."""
    begun = time.perf_counter()
    made = _prepared(job.place)
    order = stream_of(len(made.x_pool), job.samples, job.seed)
    if job.config is None:
        from fieldloop.study.floats import train_float

        result = train_float(made, order, job)
    else:
        result = _learned(made, order, job, job.config)
    return {
        "key": job.key,
        "task": job.task,
        "mode": job.mode,
        "selector": job.selector,
        "rung": job.rung,
        "numeric": job.numeric,
        "seed": job.seed,
        "samples": job.samples,
        "rate": job.rate,
        **result,
        "seconds": round(time.perf_counter() - begun, 3),
    }


def _learned(
    made: Prepared, order: npt.NDArray[np.int64], job: Job, config: LearnerConfig
) -> dict[str, Any]:
    model = Model(made.image)
    learner: Learner | None = None
    steps: list[Step] = []
    for part, factor in phases_of(order):
        state = None if learner is None else learner.state
        learner = Learner(model, replace(config, lr=config.lr * factor))
        if state is not None:
            learner.load(state)
        steps += learner.run(made.x_pool[part], made.y_pool[part])
    assert learner is not None
    said = np.array([step.predicted for step in steps])
    late = len(order) // 2
    stats = learner.stats
    answers = model.classify(made.x_test[: job.tested])
    given = stats.samples + stats.replayed
    return {
        "accuracy": float((answers == made.y_test[: job.tested]).mean()),
        # Of the second half of the stream, each sample before it was learned.
        "online_accuracy": float((said[late:] == made.y_pool[order[late:]]).mean()),
        "forward_macs": stats.forward_macs + made.trunk_macs * given,
        "backward_macs": stats.backward_macs,
        "dense_backward_macs": stats.dense_backward_macs,
        "trained": stats.trained,
        "skipped": stats.skipped,
        "refused": stats.refused,
        "clipped": stats.clipped,
        "ram_bytes": _ram(made, config),
    }


def _ram(made: Prepared, config: LearnerConfig) -> int:
    """Of the whole model while it learns: its arena and the learner's own block."""
    model = Model(made.whole)
    return model.plan_bytes("LEARN") + learner_sizes(model, config).total_bytes
