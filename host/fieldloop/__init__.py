"""fieldloop: train on the host, learn in the field.

`import fieldloop` imports neither torch nor the C core; both load when they are first needed.
"""

__version__ = "0.1.0"
