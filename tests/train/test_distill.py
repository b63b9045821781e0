"""Training: repeatable, confined to the known classes, and it does learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fieldloop.errors import UsageError
from fieldloop.train import distill
from fieldloop.train.distill import Schedule
from fieldloop.zoo import digits


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load(seed=7, missing=(3, 7))


def short_teacher(data: digits.Digits, seed: int, epochs: int = 2) -> digits.Teacher:
    with distill.deterministic(seed):
        network = digits.Teacher()
        distill.train(
            network, *data.known_train(), known=data.known, schedule=Schedule(epochs=epochs)
        )
    return network


def weights(network: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in network.state_dict().values())


def test_the_split(data: digits.Digits) -> None:
    assert len(data.x_train) + len(data.x_test) == 1797
    assert len(data.x_test) == 540
    assert data.x_train.min() == 0.0 and data.x_train.max() == 1.0
    shares = np.bincount(data.y_test) / np.bincount(np.concatenate([data.y_train, data.y_test]))
    assert np.allclose(shares, digits.TEST_SHARE, atol=0.01)  # stratified
    assert set(data.known_train()[1]) == set(data.known) == {0, 1, 2, 4, 5, 6, 8, 9}
    same = digits.load(seed=7, missing=(7, 3))
    assert (same.x_train == data.x_train).all() and same.missing == data.missing
    assert (digits.load(seed=8).x_test != data.x_test).any()


def test_the_stream_shows_training_samples_of_the_missing_classes_only(
    data: digits.Digits,
) -> None:
    x, y = data.stream(2, seed=5)
    assert set(y) == {3, 7}
    half = len(y) // 2
    train = {sample.tobytes() for sample in data.x_train[np.isin(data.y_train, (3, 7))]}
    for part in (x[:half], x[half:]):  # each pass has each sample
        assert {sample.tobytes() for sample in part} == train
    assert (x[:half] != x[half:]).any()
    again, _ = data.stream(2, seed=5)
    assert (again == x).all()


def test_the_rehearsal_set_is_of_old_training_samples(data: digits.Digits) -> None:
    x, y = data.rehearsal(20)
    assert np.bincount(y, minlength=10).tolist() == [20, 20, 20, 0, 20, 20, 20, 0, 20, 20]
    test = {sample.tobytes() for sample in data.x_test}
    assert not any(sample.tobytes() in test for sample in x)


@pytest.mark.parametrize("missing", [(), (1, 1), (10,), (-1, 2), tuple(range(9))])
def test_missing_classes_are_checked(missing: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="missing: expected"):
        digits.load(missing=missing)


def test_the_same_seed_trains_the_same_network(data: digits.Digits) -> None:
    torch.manual_seed(123)
    threads, ahead = torch.get_num_threads(), torch.get_rng_state()
    first = short_teacher(data, 5, epochs=1)
    assert weights(first) == weights(short_teacher(data, 5, epochs=1))
    assert weights(first) != weights(short_teacher(data, 6, epochs=1))
    # The caller's torch is left as it was.
    assert torch.get_num_threads() == threads
    assert (torch.get_rng_state() == ahead).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_unknown_rows_take_no_part(data: digits.Digits) -> None:
    """The rows of the missing classes get no gradient, by either loss."""
    with distill.deterministic(1):
        teacher, student = digits.Teacher(), digits.Student()
        start = student.head.weight.detach().clone()
        distill.train(
            student,
            *data.known_train(),
            known=data.known,
            schedule=Schedule(epochs=1, decay=0.0),
            teacher=teacher,
        )
    moved = (student.head.weight.detach() - start).abs().sum(dim=1)
    assert (moved[list(data.missing)] == 0).all()
    assert (moved[list(data.known)] > 0).all()


def test_quiet_rows_are_the_mean_of_the_others_and_never_win(data: digits.Digits) -> None:
    with distill.deterministic(2):
        student = digits.Student().eval()
    x = torch.from_numpy(data.x_test.transpose(0, 3, 1, 2).copy())
    known, quiet = list(data.known), list(data.missing)
    with torch.no_grad():
        before = student(x)[:, known].softmax(dim=1)
        distill.quiet_rows(student.head, data.known)
        after = student(x)
    assert torch.allclose(after[:, known].softmax(dim=1), before, atol=1e-5)
    assert (student.head.weight[quiet] == 0).all() and (student.head.bias[quiet] == 0).all()
    assert torch.allclose(after[:, known].mean(dim=1), after[:, quiet[0]], atol=1e-4)
    assert np.isin(after.argmax(dim=1).numpy(), known).all()


def test_a_short_training_learns_and_a_student_follows_its_teacher(data: digits.Digits) -> None:
    x_test, y_test = data.known_test()
    teacher = short_teacher(data, 3, epochs=8)
    assert distill.accuracy(teacher, x_test, y_test, data.known) > 0.95
    # Without a single true label, the student can only have it from the teacher.
    with distill.deterministic(3):
        student = digits.Student()
        distill.train(
            student,
            *data.known_train(),
            known=data.known,
            schedule=Schedule(epochs=12, rate=8e-3),
            teacher=teacher,
            distillation=distill.Distillation(soft=1.0),
        )
    assert distill.accuracy(student, x_test, y_test, data.known) > 0.9


def test_bending_keeps_shape_and_range(data: digits.Digits) -> None:
    images = torch.from_numpy(data.x_train[:64].transpose(0, 3, 1, 2).copy())
    torch.manual_seed(0)
    bent = distill.bend(images, Schedule(epochs=1))
    assert bent.shape == images.shape
    assert float(bent.min()) >= 0.0 and float(bent.max()) <= 1.0 + 1e-6
    assert float((bent - images).abs().mean()) > 0.01
    still = distill.bend(images, Schedule(epochs=1, rotation=0.0, shear=0.0, zoom=0.0, shift=0.0))
    assert torch.allclose(still, images, atol=1e-4)
