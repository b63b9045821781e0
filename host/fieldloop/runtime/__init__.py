"""The device's own arithmetic on the host: models and learners of the C core, through cffi."""

from fieldloop.runtime.learner import (
    Learner,
    LearnerConfig,
    LearnerSizes,
    LearnerStats,
    Step,
    learner_sizes,
)
from fieldloop.runtime.model import Model, TensorInfo

__all__ = [
    "Learner",
    "LearnerConfig",
    "LearnerSizes",
    "LearnerStats",
    "Model",
    "Step",
    "TensorInfo",
    "learner_sizes",
]
