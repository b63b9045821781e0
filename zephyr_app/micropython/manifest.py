# What is frozen into the firmware: the device package as it is, and _boot.py.
# ruff: noqa: F821  (the names come from makemanifest.py)
package("fieldloop", base_path="../../device", opt=3)
freeze("modules", "_boot.py", opt=3)
