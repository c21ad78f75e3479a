"""Compiled inner loops: bitmaps, 1-bit codes, float16 rows. Each has a NumPy twin in its test.

`compiled.py` says how they are compiled and where the result is kept; `lanes.py` and `compares.py`
hold the vector instructions that Numba has no words for. Every kernel runs without the
interpreter's lock, on one thread, and writes only to what it allocated itself or was told to fill.
"""
