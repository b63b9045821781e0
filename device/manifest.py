# Freezes the package into a firmware: include() this file from the board's own manifest.
# ruff: noqa: F821 - makemanifest.py brings the names
metadata(description="int8 inference and learning in the field", version="0.1.0")
package("fieldloop")
