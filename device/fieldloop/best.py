"""The best evaluation of a training run, and when to stop one that no longer gets better."""


class Best:
    """`patience`: stop after so many evaluations in a row without a new best; 0: never.

    With patience, the state that the best evaluation was made with is kept in RAM, so that the run
    can end with it; where the heap has no room for a copy, `kept` is False and the run ends with
    the weights it has.
    """

    def __init__(self, core, patience=0):
        self.core = core
        self.patience = patience
        self.right = -1  # of the best evaluation; -1: none yet
        self.total = 0
        self.looks = 0  # evaluations
        self.misses = 0  # of them, since the best
        self.kept = False
        self._state = None

    def look(self, right, total):
        """Takes an evaluation; True when it is time to stop."""
        self.looks += 1
        self.total = total
        if right > self.right:
            self.right = right
            self.misses = 0
            if self.patience:
                self._keep()
            return False
        self.misses += 1
        return 0 < self.patience <= self.misses

    def _keep(self):
        state = self.core.state()
        self.kept = False
        if self._state is None:
            try:
                self._state = bytearray(len(state))
            except MemoryError:
                return
        memoryview(self._state)[:] = state
        self.kept = True

    def bring_back(self):
        """Ends a run with its best state, counters and rehearsal memory included."""
        if self.misses and self.kept:
            self.core.load(self._state)
            self.misses = 0
            return True
        return False
