# ruff: noqa: F821  (the names come from makemanifest.py)
# Frozen into the firmware: the boot script that mounts the file system, and asyncio.
freeze("$(PORT_DIR)/frozen")
include("$(MPY_DIR)/extmod/asyncio")
