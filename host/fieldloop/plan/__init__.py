"""The memory plan: operator order, buffer offsets, and an independent verifier."""
