"""Reference networks: `networks[name]()`, `input_shape(name)`, `load(name)`."""

from fieldloop.zoo.registry import input_shape, load, networks

__all__ = ["input_shape", "load", "networks"]
