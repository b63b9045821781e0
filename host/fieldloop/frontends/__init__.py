"""Frontends: other people's networks -> the graph."""
