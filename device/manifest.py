# Freezes the package into a firmware: include("path/to/device/manifest.py") from the board's manifest.
metadata(description="int8 inference and learning in the field", version="0.1.0")
package("fieldloop")
