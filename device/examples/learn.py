"""Learn the samples that travel with the active model, over and over, until Ctrl-C.

    mpremote connect PORT run device/examples/learn.py

Every tenth sample is followed by a commit. Ctrl-C, or a power cut, at any moment leaves the newest
commit whole; the next run goes on from it.
"""

import fieldloop


def main():
    found = fieldloop.active()
    if found is None:
        print("no model is active; push one from the host: fieldloop push model.flm")
        return
    model, store = found
    learner = fieldloop.Learner(model, store, memory=20, seed=1)
    print(learner, "goes on from commit" if learner.restored else "starts at commit", learner.seq)

    done = right = 0
    try:
        while True:
            label, x = model.sample(done % model.samples)
            right += learner.step(x, label) == label
            done += 1
            if done % 10 == 0:
                print("commit", learner.commit(), "after", done, "samples,", right, "of 10 right")
                right = 0
    except KeyboardInterrupt:
        print("stopped; commit", learner.seq, "stays")


main()
