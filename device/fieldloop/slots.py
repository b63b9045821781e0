"""Places for a model image: a raw partition, or a file where there is none."""

import os

import _fieldloop


class PartitionSlot:
    """An image in a raw partition; executed in place where the partition is memory."""

    def __init__(self, name, device):
        self.name = name
        self.device = device
        self.writer = _fieldloop.Slot(device)
        self.size = self.writer.size
        self.begin = self.writer.begin
        self.write = self.writer.write
        self.sha256 = self.writer.sha256
        self.readinto = self.writer.readinto

    def end(self, good):
        self.writer.end()

    def image(self, length):
        """The image's bytes: in place, or read once into one buffer."""
        try:
            return memoryview(self.device)
        except TypeError:
            image = bytearray(length)
            self.readinto(0, image)
            return image


class FileSlot:
    """An image in a file. It is written beside the old one and takes its place when whole."""

    def __init__(self, name, path):
        self.name = name
        self.path = path
        self.part = path + ".part"
        self.size = 0  # what the file system has left; not told
        self._file = None

    def begin(self, total):
        self._close()
        self._file = open(self.part, "wb")

    def write(self, offset, data):
        try:
            self._file.write(data)
        except OSError:
            self._close()
            os.remove(self.part)  # a full disk gets its space back
            raise

    def end(self, good):
        self._close()
        if good:
            os.rename(self.part, self.path)

    def _close(self):
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pieces(self, offset, length):
        piece = bytearray(min(length, 512))
        with open(self._newest(), "rb") as f:
            f.seek(offset)
            while length > 0:
                n = f.readinto(memoryview(piece)[: min(length, len(piece))])
                if not n:
                    raise OSError(5, self.path + " is shorter than it was")
                yield memoryview(piece)[:n]
                length -= n

    def _newest(self):
        # Before end(), what was written is the .part file.
        return self.path if self._file is None else self.part

    def sha256(self, length):
        if self._file is not None:
            self._file.flush()
        return _fieldloop.sha256(self._pieces(0, length))

    def readinto(self, offset, buffer):
        at = 0
        for piece in self._pieces(offset, len(buffer)):
            buffer[at : at + len(piece)] = piece
            at += len(piece)

    def image(self, length):
        image = bytearray(length)
        self.readinto(0, image)
        return image


class FileBlocks:
    """A block device in a file, for a store where there is no raw partition."""

    prog_size = 4

    def __init__(self, path, sectors=16, sector_bytes=4096):
        self.sectors = sectors
        self.sector_bytes = sector_bytes
        try:
            self._file = open(path, "r+b")
        except OSError:
            with open(path, "wb") as f:
                for _ in range(sectors):
                    f.write(b"\xff" * sector_bytes)
            self._file = open(path, "r+b")

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * self.sector_bytes + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        self._file.seek(block * self.sector_bytes + offset)
        self._file.write(buffer)

    def ioctl(self, command, argument):
        if command == 3:
            self._file.flush()
            return 0
        if command == 4:
            return self.sectors
        if command == 5:
            return self.sector_bytes
        if command == 6:
            self.writeblocks(argument, b"\xff" * self.sector_bytes)
            return 0
        return None
