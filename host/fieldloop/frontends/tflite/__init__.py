"""The .tflite frontend: int8, uint8 and float32 files become graphs that give the same bytes."""

from fieldloop.frontends.tflite.reader import read_tflite

__all__ = ["read_tflite"]
