"""Learner: teaches a model, and keeps what it learned in a power-safe store.

Records of a model in the store: STATE holds what was learned (an empty one means the factory
weights), SETTINGS how the learner was configured, so that it can be opened again after a start.
"""

import _fieldloop

from fieldloop.best import Best

STATE = 1
SETTINGS = 3


class Learner:
    """Arguments: the model, a store (a raw partition's block device, a Store, or None to keep
    nothing), and the settings of the learner by name (`Learner.config` tells them all).

    Starts from the newest commit of the same model and settings; `restored` tells if there
    was one.
    """

    def __init__(self, model, store=None, **settings):
        if store is not None and not isinstance(store, _fieldloop.Store):
            store = _fieldloop.Store(store)
        self.model = model
        self.store = store
        self.uid = model.uid
        self.core = core = _fieldloop.Learner(model, **settings)
        # step(x, label) -> class predicted before, None: refused. Allocates nothing with int8
        # samples, and with an array('f') of real values once, for all that follow.
        self.step = core.step
        self.train = core.train  # the same without memory and replay
        self.state = core.state  # what a commit writes, as a view
        self.stats = core.stats
        self.seq = 0  # number of the commit that the weights came from; 0: the factory's
        self.restored = False
        if store is not None and store.find(STATE, self.uid) is not None:
            try:
                self.restore()
                self.restored = self.seq != 0
            except ValueError:
                pass  # of other settings: it stays in the store until two commits came after it

    def __getattr__(self, name):
        return getattr(self.core, name)  # config, error, trained, kept, ..._bytes

    def __repr__(self):
        return repr(self.core)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.deinit()

    def deinit(self):
        self.core.deinit()

    def _stored(self):
        if self.store is None:
            raise OSError(2, "this learner has no store; give it a block device")
        return self.store

    def _newest(self, nth=0):
        return self._stored().find(STATE, self.uid, nth)

    def _load(self, nth, length):
        if length == 0:
            self.core.reset()
            return
        state = bytearray(length)
        self.store.read(STATE, self.uid, nth, state)
        self.core.load(state)

    def commit(self):
        """Write what was learned; returns the record's number.

        A power cut at any moment leaves this commit or the one before, whole. A batch that is not
        full yet is averaged and written first: a state holds no unfinished one.
        """
        store = self._stored()
        self.core.flush()
        packed = self.core.packed
        record = store.find(SETTINGS, self.uid)
        same = False
        if record is not None and record[3] == len(packed):
            old = bytearray(len(packed))
            store.read(SETTINGS, self.uid, 0, old)
            same = old == packed
        if not same:
            store.append(SETTINGS, self.uid, packed)
        try:
            store.append(STATE, self.uid, self.core.state())
        except BaseException:
            if not same and record is not None:
                # The two newest are kept; the next try must not push out the newest state's.
                store.copy(SETTINGS, self.uid, 1)
            raise
        self.seq = self._newest()[2]
        return self.seq

    def restore(self):
        """Back to the last commit; to the factory weights when there is none."""
        record = self._newest()
        if record is None:
            self.core.reset()
            self.seq = 0
        else:
            self._load(0, record[3])
            self.seq = record[2] if record[3] else 0
        return self.seq

    def undo(self):
        """Back to the commit before the last one, for good; before the first lie the factory's
        weights."""
        newest = self._newest()
        if newest is None:
            raise OSError(2, "nothing was committed yet")
        before = self._newest(1)
        if before is None:
            return self.reset()
        self._load(1, before[3])
        try:
            self.store.copy(STATE, self.uid, 1)
        except OSError:
            self._load(0, newest[3])  # what cannot be kept is not done
            raise
        self.seq = self._newest()[2]
        return self.seq

    def reset(self):
        """Back to the factory weights, for good; undo() brings the last commit back."""
        seq = 0
        if self.store is not None:
            newest = self._newest()
            if newest is not None and newest[3] != 0:
                self.store.append(STATE, self.uid)  # first: when it fails nothing changed
                seq = self._newest()[2]
        self.core.reset()
        self.seq = seq
        return seq

    def fit(self, samples, labels, epochs=1, every=0, patience=0):
        """step() over `samples`, a sequence of them, `epochs` times; evaluates on the samples that
        the image holds out after every `every` of them (0: after each epoch) and after the last.

        With `patience`, ends after so many evaluations in a row without a new best, and with the
        best state where the heap has room for a copy (`kept`). Returns what happened as a dict.
        """
        if len(labels) != len(samples):
            raise ValueError("labels: expected %d, got %d" % (len(samples), len(labels)))
        if epochs < 1 or every < 0 or patience < 0 or not samples:
            raise ValueError("fit: expected samples, 1 or more epochs, every and patience from 0")
        if self.core.evaluate()[1] == 0:
            raise ValueError("holdout: none of the image's samples is left to evaluate on")
        best = Best(self.core, patience)
        every = every or len(samples)
        last = epochs * len(samples)
        done = hit = 0
        early = False
        for _ in range(epochs):
            for i in range(len(samples)):
                hit += self.step(samples[i], labels[i]) == labels[i]
                done += 1
                if done % every == 0 or done == last:
                    self.core.flush()
                    early = best.look(*self.core.evaluate()) and done < last
                    if early:
                        break
            if early:
                break
        self.core.flush()
        return {
            "samples": done,
            "hit": hit,
            "evals": best.looks,
            "best": best.right,
            "total": best.total,
            "early": early,
            "kept": best.kept,
            "back": best.bring_back(),
        }

    def watermark(self, x, label):
        """Highest byte of the learner's own memory that a step touches, plus one.

        What was learned before is back afterwards.
        """
        kept = bytes(self.core.state())
        highest = 0
        try:
            for paint in (0x55, 0xAA):
                self.core.paint(paint)
                self.core.step(x, label)
                highest = max(highest, self.core.touched(paint))
        finally:
            self.core.load(kept)
        return highest


def resume(model, store):
    """The learner that was open when the model's newest commit was written, or None."""
    record = store.find(STATE, model.uid)
    if record is None or record[3] == 0:
        return None
    # Settings are written before the state: a cut may leave newer ones without theirs.
    for nth in (0, 1):
        settings = store.find(SETTINGS, model.uid, nth)
        if settings is None:
            break
        packed = bytearray(settings[3])
        store.read(SETTINGS, model.uid, nth, packed)
        try:
            learner = Learner(model, store, packed=packed)
        except ValueError:
            continue
        if learner.restored:
            if nth:
                try:
                    store.copy(SETTINGS, model.uid, 1)  # else the next cut would push them out
                except OSError:
                    pass
            return learner
        learner.deinit()
    return None
