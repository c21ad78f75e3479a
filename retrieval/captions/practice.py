"""Made-up sentences about nobody.

`practice` makes those that a training learns from what sentences say of attributes. Long ones say a
share of what is true of somebody, so that attributes come together as they do in life. Short ones
say one to three attributes whatever: those that are rare are heard as often, and a question is
rarely longer. `made_sentences` makes those that stand for a collection's captions where it has
none: to measure an index with, or the gap between faces and sentences.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.captions.grammar import captions
from retrieval.captions.vocabulary import ATTRIBUTES, FEMALE, MALE

Truth = npt.NDArray[np.float32]

LONG_SHARE: Final = 0.75  # of the sentences
SHARES: Final = (0.15, 0.35, 0.6)  # of the true attributes that long ones say
DENIED: Final = (0, 0, 0, 1)
SHORT_ATTRIBUTES: Final = (1, 1, 2, 2, 3)
SAID: Final = (1.0, 0.45, 0.2)  # of somebody's attributes that one of `made_sentences` names
TRUE: Final = 0.2  # of all attributes are true of somebody


def made_sentences(count: int) -> list[str]:
    """Captions of nobody, always the same: of random attributes, full and partial."""
    random = Random(0)  # noqa: S311  (no secret)
    sentences = []
    for seed in range(count):
        true = {one.tag: random.random() < TRUE for one in ATTRIBUTES}
        true[MALE] = not true[FEMALE]
        sentences += captions(true, seed=seed, share=random.choice(SAID))
    return sentences


def practice(tags: Sequence[str], truth: Truth, *, count: int, seed: int) -> list[str]:
    """At most `count` different sentences; the same for the same arguments.

    Args:
        tags: (t,) attributes of the table of words.
        truth: (n, t) of faces: 1, 0, and NaN where it is not known.
        count: sentences.
        seed: another gives others.
    """
    random = Random(seed)  # noqa: S311  (choices of words)
    made: dict[str, None] = {}
    rows = np.flatnonzero((truth == 1).any(axis=1)) if len(tags) else np.empty(0, np.int64)
    for _ in range(count if len(rows) else 0):
        if random.random() < LONG_SHARE:
            row = truth[rows[random.randrange(len(rows))]].tolist()
            attributes = {
                tag: flag == 1 for tag, flag in zip(tags, row, strict=True) if flag in (0, 1)
            }
            share, denied = random.choice(SHARES), random.choice(DENIED)
        else:
            attributes = _few(tags, random)
            share, denied = 1.0, 0
        seed_of_it = random.randrange(2**31)
        made.update(
            dict.fromkeys(captions(attributes, seed=seed_of_it, share=share, denied=denied))
        )
    return list(made)


def _few(tags: Sequence[str], random: Random) -> dict[str, bool]:
    """One to three attributes; half of the time a sex beside them."""
    many = min(random.choice(SHORT_ATTRIBUTES), len(tags))
    chosen = set(random.sample(list(tags), many))
    sexes = [sex for sex in (MALE, FEMALE) if sex in tags]
    if sexes and (random.random() < 0.5 or chosen >= {MALE, FEMALE}):  # noqa: PLR2004
        chosen = chosen - {MALE, FEMALE} | {random.choice(sexes)}
    return dict.fromkeys(sorted(chosen), True)
