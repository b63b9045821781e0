"""Executed instructions of learning, on bare metal: what bench/learning.py runs."""
