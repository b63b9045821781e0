"""Jobs: long work in small pieces, so that the host is answered meanwhile."""


class Job:
    """`of` steps over the samples that travel with the image, in their order, again and again."""

    def __init__(self, number, of, model, learner):
        of = int(of)
        if of < 1:
            raise ValueError("of: expected 1 or more steps, got %d" % of)
        self.id = number
        self.of = of
        self.done = 0
        self.state = "running"
        self.text = None
        self.model = model
        self.learner = learner

    def status(self):
        status = {"job": self.id, "state": self.state, "done": self.done, "of": self.of}
        if self.text is not None:
            status["msg"] = self.text
        return status

    def cancel(self):
        if self.state == "running":
            self.state = "cancelled"

    def advance(self):
        """One step, if there is one to do."""
        if self.state != "running":
            return
        sample = self.model.sample(self.done % self.model.samples)
        try:
            self.step(sample[1], sample[0])
        except (ValueError, OSError, MemoryError) as e:
            self.state = "failed"
            self.text = str(e)
            return
        self.done += 1
        if self.done == self.of:
            self.state = "done"
            self.finish()

    def finish(self):
        pass


class Train(Job):
    """Trains on the image's rehearsal samples."""

    def step(self, x, label):
        self.learner.train(x, label)


class SelfTest(Job):
    """Predicts the image's samples and tells how many are right."""

    right = 0

    def step(self, x, label):
        self.right += self.model.predict(x) == label

    def finish(self):
        self.text = "%d of %d samples right" % (self.right, self.of)


KINDS = {"train": Train, "selftest": SelfTest}
