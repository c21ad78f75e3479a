"""Faces and sentences in one space: a folder holds a model, `folder` opens it for either kind.

A face-text space compares both: a sentence finds faces, a face finds sentences, a face finds faces
that look alike in what sentences tell. The kind `light` needs no torch: a frozen sentence encoder,
one ONNX network, heads that were trained here. The kind `open_clip` runs any network of that
library from local weights.
"""
