"""Push: takes an image from the host in chunks, into a slot or a file."""

import _fieldloop

MAGIC = b"FLM1"
CRC_FROM = 16  # the header's CRC covers what follows it


class Push:
    """One push at a time: the place, its length and SHA-256, and the offset expected next.

    A SHA-256 of None: the file group's upload, whose client tells none.
    """

    def __init__(self, server):
        self.server = server
        self.to = None
        self.length = 0
        self.sha = None
        self.next = 0
        self.slot = None
        self.match = False

    def take(self, body):
        to, offset, data = body["to"], body["off"], body["data"]
        if offset == 0:
            length, sha = body["len"], bytes(body["sha"])
            if length < 1 or len(sha) != 32:
                raise ValueError("push: expected len of 1 or more and a sha of 32 bytes")
            if (to, length, sha) != (self.to, self.length, self.sha):
                self._begin(to, length, sha)
            elif self.match and not self._is_there():
                self._begin(to, length, sha)
        if to != self.to or self.sha is None:
            raise ValueError("push: no push to %s is under way; begin at off 0" % to)
        self._take(offset, data)
        reply = {"off": self.next}
        if self.next == self.length:
            reply["match"] = self.match
            if not self.match:
                self.to = None  # the next attempt begins anew
        return reply

    def take_file(self, to, offset, data, length):
        """(offset expected next, match or None while bytes are missing) of an upload without a
        SHA-256; the image's own CRC decides. The offset is None when no upload is under way.

        Nothing tells two files of one length apart: off 0 always begins anew.
        """
        if offset == 0:
            if length < 1:
                raise ValueError("expected len of 1 or more")
            self._begin(to, length, None)
        elif to != self.to or self.sha is not None:
            return None, None
        self._take(offset, data)
        if self.next < self.length:
            return self.next, None
        if not self.match:
            self.to = None
        return self.next, self.match

    def _take(self, offset, data):
        if offset != self.next or len(data) == 0 or self.next == self.length:
            return
        self._write(offset, data)

    def _begin(self, to, length, sha):
        self.to = None
        slot = self.server.storage.slot(to)
        if slot is None:
            raise ValueError("push: no slot %s; see info" % to)
        self.slot, self.length, self.sha = slot, length, sha
        self.match = sha is not None and self._is_there()
        self.next = length if self.match else 0
        if not self.match:
            if slot.size and length > slot.size:
                raise OSError(
                    28, "slot: needs %d bytes, %d available in %s" % (length, slot.size, to)
                )
            if not hasattr(slot, "part"):
                self._take_from_model()  # it runs from the bytes that are about to be erased
            slot.begin(length)
        self.to = to

    def _take_from_model(self):
        server = self.server
        if server.slot is not None and server.slot[0] == self.slot.name:
            server.close()

    def _is_there(self):
        return (
            self.image_bytes(self.slot) == self.length
            and self.slot.sha256(self.length) == self.sha
        )

    def _write(self, offset, data):
        try:
            if len(data) > self.length - offset:
                raise ValueError(
                    "push: expected %d bytes or less at off %d, got %d"
                    % (self.length - offset, offset, len(data))
                )
            if not hasattr(self.slot, "part"):
                # Written once more with the same bytes it had its SHA-256 before it was written
                # to the end, and somebody may have activated it.
                self._take_from_model()
            self.slot.write(offset, data)
            self.next = offset + len(data)
            if self.next == self.length:
                self._end()
        except BaseException:  # Ctrl-C too: a place that may be half-written is begun anew
            self.to = None
            raise

    def _end(self):
        if hasattr(self.slot, "part"):  # a file takes the old one's place only when it is whole
            self.match = self._is_whole()
            if self.match:
                self._take_from_model()
            self.slot.end(self.match)
        else:
            self.slot.end(True)
            self.match = self._is_whole()

    def _is_whole(self):
        """What was written is what the host meant: by its SHA-256, else by the image's CRC."""
        slot, length = self.slot, self.length
        if self.sha is not None:
            return slot.sha256(length) == self.sha
        head = bytearray(CRC_FROM)
        if length < CRC_FROM:
            return False
        slot.written(0, head)
        if bytes(head[:4]) != MAGIC or int.from_bytes(head[8:12], "little") != length:
            return False
        piece = memoryview(bytearray(256))
        crc, at = 0, CRC_FROM
        while at < length:
            part = piece[: min(length - at, len(piece))]
            slot.written(at, part)
            crc = _fieldloop.crc32(part, crc)
            at += len(part)
        return crc == int.from_bytes(head[12:16], "little")

    def image_bytes(self, slot):
        """Bytes of the image that the slot says it holds; 0 when it does not look like one."""
        head = bytearray(12)
        try:
            slot.readinto(0, head)
        except (OSError, ValueError):
            return 0
        length = int.from_bytes(head[8:12], "little")
        if bytes(head[:4]) != MAGIC or (slot.size and length > slot.size):
            return 0
        return length
