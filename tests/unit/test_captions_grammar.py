"""From attributes to sentences and back without loss, and what free sentences say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.captions.grammar import attributes_of, captions
from retrieval.captions.policy import policy
from retrieval.captions.vocabulary import ATTRIBUTES, BY_TAG
from retrieval.errors import UsageError

TAGS = [one.tag for one in ATTRIBUTES if one.tag not in ("male", "female")]
MAN = {"male": True, "female": False}
WOMAN = {"female": True, "male": False}


@st.composite
def faces(draw: st.DrawFn) -> dict[str, bool]:
    """Any truth of any attributes, likely or not, of one sex or of none known."""
    true = draw(st.sets(st.sampled_from(TAGS)))
    sex = draw(st.sampled_from([MAN, WOMAN, {}]))
    return {tag: tag in true for tag in TAGS} | sex


@given(faces(), st.integers(0, 2**32), st.integers(0, 4))
def test_a_full_caption_says_every_true_attribute_and_no_other(
    face: dict[str, bool], seed: int, denied: int
) -> None:
    for caption in captions(face, seed=seed, count=3, denied=denied):
        read = attributes_of(caption)
        assert {tag for tag, truth in read.items() if truth} == {t for t in face if face[t]}
        said_false = {tag for tag, truth in read.items() if not truth}
        assert not any(face[tag] for tag in said_false)
        assert len(said_false - {"male", "female"}) <= denied


@given(faces(), st.integers(0, 2**32), st.sampled_from([0.2, 0.45]))
def test_a_partial_caption_says_its_share_and_nothing_false(
    face: dict[str, bool], seed: int, share: float
) -> None:
    (caption,) = captions(face, seed=seed, share=share)
    said = {tag for tag, truth in attributes_of(caption).items() if truth}
    assert all(face[tag] for tag in said)
    true = sum(face[tag] for tag in TAGS)
    assert len(said - {"male", "female"}) == round(share * true)


@given(faces(), st.integers(0, 2**32))
def test_captions_depend_on_attributes_and_seed_alone(face: dict[str, bool], seed: int) -> None:
    turned = dict(reversed(face.items()))
    assert captions(face, seed=seed, count=3) == captions(turned, seed=seed, count=3)


@given(faces(), st.integers(0, 2**32))
def test_sentences_are_written_as_sentences_are(face: dict[str, bool], seed: int) -> None:
    for caption in captions(face, seed=seed, count=2, denied=2):
        assert re.fullmatch(r"([A-Z][^.]*[^., ]\.)( [A-Z][^.]*[^., ]\.)*", caption), caption
        assert not re.search(r"  | ,|,,|\ba [aeiou]|\ban [^aeiou]|\band and\b", caption), caption
        assert not re.search(r"\b(\w+) \1\b", caption), caption


@given(faces(), st.integers(0, 2**32))
def test_no_caption_says_what_the_policy_refuses(face: dict[str, bool], seed: int) -> None:
    for caption in captions(face, seed=seed, count=2):
        assert policy("flag").check(caption) == ()


def test_many_captions_of_one_face_differ_and_use_many_words() -> None:
    face = WOMAN | dict.fromkeys(("glasses", "smiling", "blond hair", "earrings", "big nose"), True)
    found = captions(face, seed=1, count=100)
    assert len(set(found)) == len(found) == 100
    words = " ".join(found)
    for tag in ("glasses", "blond hair", "big nose", "female"):
        assert all(word in words for word in BY_TAG[tag].said), tag


def test_a_face_of_which_little_is_known_gets_fewer_captions_than_asked() -> None:
    found = captions({}, seed=0, count=500)
    assert 1 < len(found) < 30
    assert len(set(found)) == len(found)


def test_sensitive_and_unknown_attributes_are_never_said() -> None:
    face = MAN | {"hat": True}
    more = face | {"attractive": True, "asian": True, "pale skin": True, "emotion": True}
    assert captions(more, seed=5, count=20) == captions(face, seed=5, count=20)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"share": 1.5}, {"share": -0.1}, {"denied": -1}])
def test_impossible_wishes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="captions need"):
        captions(MAN, seed=0, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a woman", WOMAN),
        ("a bearded man wearing eyeglasses", MAN | {"beard": True, "glasses": True}),
        ("someone in sunglasses", {"sunglasses": True}),
        ("a blonde woman smiling", WOMAN | {"blond hair": True, "smiling": True}),
        ("A man in a suit and tie", MAN | {"necktie": True}),
        ("a brown-haired lady", WOMAN | {"brown hair": True}),
        (
            "She has curly, black and gray hair.",
            WOMAN | {"curly hair": True, "black hair": True, "gray hair": True},
        ),
        ("Her mouth is wide open.", WOMAN | {"mouth wide open": True}),
        ("the mouth slightly open", {"mouth slightly open": True}),
        ("a man with a 5 o'clock shadow", MAN | {"stubble": True}),
        ("a man with a five o\u2019clock shadow", MAN | {"stubble": True}),
        ("bags under the eyes and brown eyes", {"bags under the eyes": True, "brown eyes": True}),
        ("a woman, 20 years old", WOMAN),
        ("an old man", MAN | {"senior": True}),
        ("a baby girl", WOMAN | {"baby": True}),
        ("two boys", MAN | {"child": True}),
        ("a man with a big red nose", MAN | {"big nose": True}),
        ("a black hat and a brown coat", {"hat": True}),
        ("a man and a woman", {}),
        ("a rose in a garden", {}),
        ("", {}),
    ],
)
def test_free_sentences_say_what_a_reader_would_say(sentence: str, said: dict[str, bool]) -> None:
    assert attributes_of(sentence) == said


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a man without glasses", MAN | {"glasses": False}),
        ("without his glasses", MAN | {"glasses": False}),
        ("no beard", {"beard": False}),
        (
            "a man with no beard, mustache or hat",
            MAN | {"beard": False, "mustache": False, "hat": False},
        ),
        ("no beard and brown hair", {"beard": False, "brown hair": True}),
        ("without glasses and a hat, smiling", {"glasses": False, "hat": False, "smiling": True}),
        ("She isn't smiling but wears a necklace.", WOMAN | {"smiling": False, "necklace": True}),
        ("He does not wear a hat. He wears a tie.", MAN | {"hat": False, "necktie": True}),
        ("neither smiling nor frowning", {"smiling": False, "frowning": False}),
        (
            "a clean-shaven man",
            MAN | {"beard": False, "mustache": False, "goatee": False, "stubble": False},
        ),
        ("he is not clean-shaven", MAN),
        ("without a hat he smiles", MAN | {"hat": False, "smiling": True}),
        ("no gray hair", {"gray hair": False}),
    ],
)
def test_what_is_denied_is_false(sentence: str, said: dict[str, bool]) -> None:
    assert attributes_of(sentence) == said
