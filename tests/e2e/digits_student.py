"""The demo's student, trained for seconds only: a real network on real digits, compiled."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.train import distill
from fieldloop.train.digits import compile_student
from fieldloop.zoo import digits

Int8 = npt.NDArray[np.int8]
Labels = npt.NDArray[np.int64]

EPOCHS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """The image, and samples as it takes them: int8 [n, 8, 8, 1]."""

    image: bytes
    test_x: Int8
    test_y: Labels
    stream_x: Int8  # of the two digits it does not know
    stream_y: Labels

    def learn(self, config: LearnerConfig, steps: int) -> Learner:
        """The host's learner after so many samples of the stream."""
        learner = Learner(Model(self.image), config)
        learner.run(self.stream_x[:steps], self.stream_y[:steps].tolist())
        return learner


@functools.cache
def student() -> Student:
    """Convolution, depthwise and pointwise convolution, pool, convolution, fully connected; it
    knows eight digits, and learns with its last convolution and its head."""
    data = digits.load()
    x, y = data.known_train()
    with distill.deterministic(0):
        network = digits.Student()
        schedule = distill.Schedule(epochs=EPOCHS, rate=8e-3)
        distill.train(network, x, y, known=data.known, schedule=schedule)
    distill.quiet_rows(network.head, data.known)
    image = compile_student(network, data).image
    quantize = Model(image).inputs[0].quantize
    stream_x, stream_y = data.stream(1, 0)
    return Student(image, quantize(data.x_test), data.y_test, quantize(stream_x), stream_y)


def settings(config: LearnerConfig) -> dict[str, bool | int | float | str]:
    """The same configuration as the link's `learner_open` takes it."""
    return {name: getattr(config, name) for name in LearnerConfig.__slots__}
