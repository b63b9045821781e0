"""fieldloop on the device: run int8 models, teach them in the field, keep what they learned.

    import fieldloop

    model = fieldloop.Model("digits.flm")      # or a memoryview of flash: executed in place
    model.predict(x)                           # class of one int8 sample
    learner = fieldloop.Learner(model, store)  # store: a raw partition's block device
    learner.step(x, label)
    learner.commit()                           # safe from power cuts from here on
    fieldloop.serve(1)                         # answer a host on UART 1; Ctrl-C ends it

Nothing here prints, and importing does nothing but define these names.
"""

import _fieldloop

from fieldloop.learner import Learner

__version__ = "0.1.0"
__all__ = ("Learner", "Model", "Server", "active", "install_main", "serve", "watermark")


def Model(source):
    """A model of an image: the path of a .flm file, or bytes at a 16-byte boundary.

    A file on a ROMFS is executed in place, an ordinary file is read once into one buffer. Anything
    with the buffer protocol (a flash partition, a memoryview) is executed in place.
    """
    if isinstance(source, str):
        source = _image_of(source)
    return _fieldloop.Model(source)


def _image_of(path):
    with open(path, "rb") as f:
        try:
            return memoryview(f)  # a ROMFS file is memory already
        except TypeError:
            pass
        size = f.seek(0, 2)
        f.seek(0)
        image = bytearray(size)  # of the heap, whose blocks are 16-byte aligned
        if f.readinto(image) != size:
            raise OSError(5, "could not read all of " + path)
        return image


def active():
    """(model, store): the model that a host activated and the store of what it learns, or None.

    A store has one owner: beside a Server use its `model`, `learner` and `storage.store` instead.
    """
    from fieldloop.storage import Storage

    storage = Storage()
    found = storage.open()
    return None if found is None else (found[0], storage.store)


def watermark(model, x):
    """Highest byte of the model's arena that predict(x) touches, plus one.

    Two runs over two paints: a byte that a run happens to leave as painted shows in the other.
    """
    highest = 0
    for paint in (0x55, 0xAA):
        model.paint(paint)
        model.predict(x)
        highest = max(highest, model.touched(paint))
    return highest


def Server(stream=None, **options):
    """A server to be polled from a loop of your own: `server.poll()`. Arguments as of serve()."""
    from fieldloop.server import Server as _Server

    return _Server(stream, **options)


def serve(stream=None, **options):
    """Answer a host for ever; Ctrl-C ends it, with what was learned intact.

    stream: None for the console, the number of a UART, or any stream (a dedicated port).
    Options: storage, buf (bytes of the largest message, 4096), group (70), text (a function that
    gets what is typed on the console between frames).
    """
    Server(stream, **options).run()


def install_main(stream=1, path="main.py"):
    """Write a main.py that serves from every start on, so that a power cut needs no hand."""
    lines = "import fieldloop\nfieldloop.serve(%r)\n" % (stream,)
    try:
        with open(path) as f:
            if f.read() == lines:
                return
        raise OSError(17, "%s is there already; add to it: %r" % (path, lines))
    except OSError as e:
        if e.errno != 2:
            raise
    with open(path, "w") as f:
        f.write(lines)
