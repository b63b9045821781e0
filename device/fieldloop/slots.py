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
        self.written = self.writer.readinto  # also before end(), but for the last program unit

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

    def _pieces(self, path, offset, length):
        piece = bytearray(min(length, 512))
        with open(path, "rb") as f:
            f.seek(offset)
            while length > 0:
                n = f.readinto(memoryview(piece)[: min(length, len(piece))])
                if not n:
                    raise OSError(5, path + " is shorter than it was")
                yield memoryview(piece)[:n]
                length -= n

    def _written(self):
        """Where what was written is; before end() that is the .part file."""
        if self._file is None:
            return self.path
        self._file.flush()
        return self.part

    def sha256(self, length):
        """Of what was written."""
        return _fieldloop.sha256(self._pieces(self._written(), 0, length))

    def written(self, offset, buffer):
        self._fill(self._written(), offset, buffer)

    def readinto(self, offset, buffer):
        self._fill(self.path, offset, buffer)

    def _fill(self, path, offset, buffer):
        at = 0
        for piece in self._pieces(path, offset, len(buffer)):
            buffer[at : at + len(piece)] = piece
            at += len(piece)

    def image(self, length):
        """The image's bytes: in place on a ROMFS, else read once into one buffer."""
        with open(self.path, "rb") as f:
            try:
                return memoryview(f)
            except TypeError:
                pass
        image = bytearray(length)
        self.readinto(0, image)
        return image


class _Blocks:
    """What the block devices below answer to MicroPython's ioctl."""

    def __init__(self, sectors, sector_bytes):
        self.sectors = sectors
        self.sector_bytes = sector_bytes

    def ioctl(self, command, argument):
        if command == 3:
            self.sync()
            return 0
        if command == 4:
            return self.sectors
        if command == 5:
            return self.sector_bytes
        if command == 6:
            self.writeblocks(argument, b"\xff" * self.sector_bytes)
            return 0
        return None


class RamBlocks(_Blocks):
    """A block device in RAM, for a store where nothing can be written: it lasts until a reset."""

    prog_size = 8

    def __init__(self, sectors=12, sector_bytes=1024):
        super().__init__(sectors, sector_bytes)
        self._bytes = bytearray(sectors * sector_bytes)
        for i in range(len(self._bytes)):
            self._bytes[i] = 0xFF

    def readblocks(self, block, buffer, offset=0):
        at = block * self.sector_bytes + offset
        memoryview(buffer)[:] = memoryview(self._bytes)[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.sector_bytes + offset
        memoryview(self._bytes)[at : at + len(buffer)] = buffer

    def sync(self):
        pass


class FileBlocks(_Blocks):
    """A block device in a file, for a store where there is no raw partition."""

    prog_size = 4

    def __init__(self, path, sectors=16, sector_bytes=4096):
        super().__init__(sectors, sector_bytes)
        try:
            self._file = open(path, "r+b")
        except OSError as e:
            if e.errno != 2:
                raise
            self._file = open(path, "w+b")
        # A new file, or one whose making a power cut ended, is filled up.
        at = self._file.seek(0, 2)
        while at < sectors * sector_bytes:
            at += self._file.write(b"\xff" * min(sector_bytes, sectors * sector_bytes - at))
        self._file.flush()

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * self.sector_bytes + offset)
        if self._file.readinto(buffer) != len(buffer):
            raise OSError(5, "the store's file is shorter than it was")

    def writeblocks(self, block, buffer, offset=0):
        self._file.seek(block * self.sector_bytes + offset)
        self._file.write(buffer)

    def sync(self):
        self._file.flush()
