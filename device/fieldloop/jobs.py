"""Jobs: long work in small pieces, so that the host is answered meanwhile."""

from fieldloop.best import Best
from fieldloop.errors import EINVAL, Refuse


class Job:
    """`of` pieces of work. States: running, paused, done, cancelled, failed."""

    def __init__(self, number, body, model, learner):
        self.id = number
        self.of = whole(body, "of", 1, self.pieces(model, learner))
        self.done = 0
        self.state = "running"
        self.text = None
        self.model = model
        self.learner = learner
        self.right = 0  # of the latest evaluation
        self.total = 0

    def pieces(self, model, learner):
        """How many there are when the host names no number; None: it has to."""

    def status(self):
        status = {"job": self.id, "state": self.state, "done": self.done, "of": self.of}
        if self.total:
            status["right"] = self.right
            status["total"] = self.total
        if self.text is not None:
            status["msg"] = self.text
        return status

    def active(self):
        """Is it still to be reckoned with? A paused job is."""
        return self.state in ("running", "paused")

    def pause(self):
        if self.state == "running":
            self.state = "paused"

    def resume(self):
        if self.state == "paused":
            self.state = "running"

    def cancel(self):
        if self.active():
            self._end("cancelled")

    def advance(self):
        """One piece, if there is one to do."""
        if self.state != "running":
            return
        try:
            over = self.piece()
        except Exception as e:  # whatever a model or a flash says ends the job, not the server
            self._fail(e)
            return
        if over:
            self._end("done")

    def _end(self, state):
        self.state = state
        try:
            self.finish()
        except Exception as e:
            self._fail(e)

    def _fail(self, e):
        self.state = "failed"
        self.text = str(e.args[1]) if len(e.args) > 1 else str(e)

    def piece(self):
        """Does one piece of the work; True when nothing is left."""
        raise NotImplementedError

    def finish(self):
        """When it is done or cancelled."""


class SelfTest(Job):
    """Predicts the image's samples and tells how many are right."""

    def piece(self):
        label, x = self.model.sample(self.index(self.done))
        self.right += self.model.predict(x) == label
        self.done += 1
        self.total = self.done
        return self.done == self.of

    def index(self, i):
        return i % self.model.samples

    def finish(self):
        self.text = "%d of %d samples right" % (self.right, self.total)


class Evaluate(SelfTest):
    """The same over the samples that the learner holds out; without a holdout over all."""

    def __init__(self, number, body, model, learner):
        self.split = Split(model, learner)
        super().__init__(number, body, model, learner)

    def pieces(self, model, learner):
        return self.split.held

    def index(self, i):
        return self.split.held_out(i % self.split.held)


class Split:
    """Which of the image's samples are trained on, in which order, and which are held out."""

    def __init__(self, model, learner):
        self.every = learner.core.config["holdout"]
        count = model.samples
        self.held = count // self.every if self.every else count
        if self.held == 0:
            raise Refuse(EINVAL, "holdout %d of %d samples is none" % (self.every, count))
        self.own = count - self.held if self.every else count
        # An image may hold one class after the other: steps of about the golden section mix them.
        self.stride = max(1, self.own * 5 // 8)
        while _common(self.stride, self.own) != 1:
            self.stride += 1

    def held_out(self, i):
        return (i + 1) * self.every - 1 if self.every else i

    def trained(self, i):
        i = i % self.own * self.stride % self.own
        return i + i // (self.every - 1) if self.every else i


class Train(Job):
    """Trains on the image's samples that are not held out, without replays, and evaluates on
    those that are: before the first step and after every `every` of them. Ends early after
    `patience` evaluations without a new best, with the best state. `commit`: keeps it then."""

    def __init__(self, number, body, model, learner):
        self.every = whole(body, "every", 0, 0)
        self.commit = bool(body.get("commit", False))
        self.best = Best(learner.core, whole(body, "patience", 0, 0))
        if self.best.patience and not self.every:
            raise Refuse(EINVAL, "patience: expected every, the steps from evaluation to the next")
        self.split = Split(model, learner)
        self.hit = 0
        self.early = False
        self.back = False
        self.seq = None
        self.looking = 0 if self.every else None  # held-out samples seen of an evaluation
        self.so_far = 0  # of them, right
        super().__init__(number, body, model, learner)

    def status(self):
        status = super().status()
        status["hit"] = self.hit
        if self.every:
            status["evals"] = self.best.looks
        if self.best.looks:
            status["best"] = self.best.right
        if self.early:
            status["early"] = True
        if self.back:
            status["back"] = True
        if self.seq is not None:
            status["seq"] = self.seq
        return status

    def piece(self):
        if self.looking is not None:
            return self._look()
        label, x = self.model.sample(self.split.trained(self.done))
        self.hit += self.learner.train(x, label) == label
        self.done += 1
        if self.every and (self.done % self.every == 0 or self.done == self.of):
            self.learner.flush()  # an evaluation is of all that was trained
            self.looking = self.so_far = 0
            return False
        return self.done == self.of

    def _look(self):
        split = self.split
        label, x = self.model.sample(split.held_out(self.looking))
        self.so_far += self.model.predict(x) == label
        self.looking += 1
        if self.looking < split.held:
            return False
        self.looking = None
        self.right, self.total = self.so_far, split.held
        self.early = self.best.look(self.right, self.total) and self.done < self.of
        return self.early or self.done == self.of

    def finish(self):
        self.learner.flush()
        if self.state == "done":
            self.back = self.best.bring_back()
            if self.best.patience and not self.best.kept:
                self.text = "no memory to keep the best state beside the newest"
            if self.commit:
                self.seq = self.learner.commit()


def whole(body, name, least, usual):
    """A number of a request; `usual` where it is missing, which None forbids."""
    value = body[name] if usual is None else body.get(name, usual)
    value = int(value)
    if value < least:
        raise Refuse(EINVAL, "%s: expected %d or more, got %d" % (name, least, value))
    return value


def _common(a, b):
    while b:
        a, b = b, a % b
    return a


KINDS = {"train": Train, "evaluate": Evaluate, "selftest": SelfTest}
