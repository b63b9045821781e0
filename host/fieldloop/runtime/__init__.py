"""The device's own arithmetic on the host: models and learners of the C core, through cffi."""

from fieldloop.runtime.learner import Learner, learner_sizes
from fieldloop.runtime.learner_config import LearnerConfig
from fieldloop.runtime.learner_facts import (
    Fit,
    LayerStats,
    LearnerPlan,
    LearnerSizes,
    LearnerStats,
    Step,
)
from fieldloop.runtime.model import Model, TensorInfo

__all__ = [
    "Fit",
    "LayerStats",
    "Learner",
    "LearnerConfig",
    "LearnerPlan",
    "LearnerSizes",
    "LearnerStats",
    "Model",
    "Step",
    "TensorInfo",
    "learner_sizes",
]
