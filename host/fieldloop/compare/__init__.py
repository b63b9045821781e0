"""Does what runs equal what was meant? The source's own runtime, the C core, and a board.

`fieldloop check` compares them layer by layer; bench/sweep.py does so over many models.
"""
