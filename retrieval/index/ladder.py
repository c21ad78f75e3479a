"""The ladder: how many lists a build needed to find neighbourhoods of several depths."""

from dataclasses import dataclass
from typing import Final

DEPTHS: Final = (10, 30, 100, 300, 1000)  # neighbours; a filter of share s asks for count / s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What share of the `depth` true neighbours of a query lay in its `lists` nearest lists."""

    depth: int
    lists: int
    recall: float
