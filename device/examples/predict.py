"""Run the active model on samples that travel with it.

mpremote connect PORT run device/examples/predict.py
"""

import fieldloop


def main():
    found = fieldloop.active()
    if found is None:
        print("no model is active; push one from the host: fieldloop push model.flm")
        return
    model, _ = found
    print(model)

    scores = bytearray(model.output_bytes)
    labels = model.labels
    right = 0
    count = min(10, model.samples)
    for i in range(count):
        label, x = model.sample(i)
        predicted = model.predict(x, scores)
        right += predicted == label
        print("sample", i, "is", labels[label], "and looks like", labels[predicted])
    print(right, "of", count, "right")


main()
