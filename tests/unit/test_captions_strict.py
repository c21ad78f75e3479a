"""A sentence divided into a filter and the rest."""

import pytest

from retrieval.captions.strict import Strict, strict
from retrieval.fields import BUILT_IN
from retrieval.filters.parse import parse

MAN = "(gender = 'male' OR 'male' = ANY(tags))"


@pytest.mark.parametrize(
    ("sentence", "divided"),
    [
        (
            "a man with glasses and no hat in a garden",
            Strict(
                where=f"{MAN} AND 'glasses' = ANY(tags) AND NOT 'hat' = ANY(tags)",
                rest="in a garden",
            ),
        ),
        (
            "a man in a suit and tie",
            Strict(where=f"{MAN} AND 'necktie' = ANY(tags)", rest="in a suit"),
        ),
        ("He isn't smiling.", Strict(where=f"{MAN} AND NOT 'smiling' = ANY(tags)", rest="")),
        ("a rose in a garden", Strict(where=None, rest="a rose in a garden")),
        ("someone smiling", Strict(where="'smiling' = ANY(tags)", rest="")),
        ("", Strict(where=None, rest="")),
    ],
)
def test_named_attributes_become_conditions_and_the_rest_stays(
    sentence: str, divided: Strict
) -> None:
    assert strict(sentence) == divided


def test_what_is_made_is_a_filter() -> None:
    sentence = "an old woman with narrow brown eyes, a five o'clock shadow and nose-mouth lines"
    made = strict(sentence + ", without earrings, outdoors")
    assert made.where is not None
    parse(made.where, BUILT_IN)
