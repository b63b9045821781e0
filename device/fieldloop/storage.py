"""Where a device keeps models and what they learned, and which model is the active one."""

import os

import _fieldloop

from fieldloop.slots import FileBlocks, FileSlot, PartitionSlot, RamBlocks

ACTIVE = 2
NO_UID = b"\x00" * 16
FOLDER = "fieldloop-data"  # without partitions, all lies in files of this folder


class Storage:
    """slots: {name: block device} for images; store: block device for what is learned.

    Without them: the partitions model0, model1 and store of a simulated board or of Zephyr's
    devicetree, else files; and RAM for the store where no file can be written.
    """

    def __init__(self, slots=None, store=None):
        if slots is None and store is None:
            slots, store = _partitions()
        if slots is None:
            slots, store = {}, store
        self.slots = {name: PartitionSlot(name, device) for name, device in slots.items()}
        if not self.slots or store is None:
            try:
                os.mkdir(FOLDER)
            except (OSError, AttributeError):  # it is there, or a ROMFS, which cannot do that
                pass
        if not self.slots:
            for name in ("model0", "model1"):
                self.slots[name] = FileSlot(name, FOLDER + "/" + name + ".flm")
        if store is None:
            store = _blocks()
        self.note = None  # what a host should know of it
        if isinstance(store, RamBlocks):
            self.note = "the store lies in RAM: a restart loses what was learned"
        self.store = _fieldloop.Store(store)

    def slot(self, name):
        """The slot of this name, or a file by its absolute path; None when there is neither."""
        if name in self.slots:
            return self.slots[name]
        return FileSlot(name, name) if name.startswith("/") else None

    def active(self):
        """(slot name, image bytes, sha256, uid) of the active model, or None."""
        record = self.store.find(ACTIVE, NO_UID)
        if record is None or record[3] < 52:
            return None
        data = bytearray(record[3])
        self.store.read(ACTIVE, NO_UID, 0, data)
        length = int.from_bytes(data[:4], "little")
        return data[52:].decode(), length, bytes(data[4:36]), bytes(data[36:52])

    def open(self):
        """(the active model, what active() tells), or None when none is active.

        ValueError when the slot holds another model, or damaged bytes.
        """
        active = self.active()
        if active is None:
            return None
        slot = self.slot(active[0])
        if slot is None:
            raise ValueError("the active model's slot %s is gone; push a model" % active[0])
        model = _fieldloop.Model(slot.image(active[1]))
        if model.uid != active[3]:
            raise ValueError("slot %s holds another model than the active one" % active[0])
        self.store.mount((NO_UID, model.uid))  # the records of other models give way
        return model, active

    def activate(self, name, length, sha, uid):
        """Remember the active model; what other models learned gives way when room is needed."""
        before = self.active()
        kept = (NO_UID, uid) if before is None else (NO_UID, uid, before[3])
        record = (length.to_bytes(4, "little"), sha, uid, name.encode())
        try:
            # Until the record is whole, the model before is the active one and keeps its records.
            self.store.mount(kept)
            try:
                self.store.append(ACTIVE, NO_UID, *record)
            except OSError as e:
                if e.errno != 28:
                    raise
                self.store.mount((NO_UID, uid))  # no room for what both learned
                self.store.append(ACTIVE, NO_UID, *record)
        except BaseException:
            self.store.mount(kept)
            raise
        self.store.mount((NO_UID, uid))


def _partitions():
    try:
        from simboard import Partition
    except ImportError:
        return _flash_areas()
    return {"model0": Partition("model0"), "model1": Partition("model1")}, Partition("store")


def _flash_areas():
    """The partitions of Zephyr's flash map with these labels."""
    try:
        from zephyr import FlashArea
    except ImportError:
        return None, None
    areas = FlashArea.areas
    slots = {name: FlashArea(*areas[name]) for name in ("model0", "model1") if name in areas}
    store = FlashArea(*areas["store"]) if "store" in areas else None
    return slots or None, store


def _blocks():
    try:
        return FileBlocks(FOLDER + "/store")
    except OSError as e:
        if e.errno not in (19, 30):  # no file system, or one that is only read
            raise
        return RamBlocks()
