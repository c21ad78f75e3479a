"""Heads learn from planted faces; the network that they see with is the identity network."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval.captions.practice import practice
from retrieval.errors import UsageError
from retrieval.evaluation.captions import auc, rank_captions
from retrieval.models.face_text.light import claims
from retrieval.models.face_text.sentences import SentenceEncoder
from retrieval.models.face_text.training import Lessons, heard_sentences, train
from retrieval.models.session import Device, Session

pytest.importorskip("torch", reason="training needs the extra `captions`", exc_type=ImportError)
pytest.importorskip("onnx", reason="training needs the extra `captions`", exc_type=ImportError)

TAGS = ("male", "female", "smiling", "glasses", "hat", "beard", "bald", "necktie", "earrings")
FACES, FEATURES, TAUGHT = 1_500, 120, 1_200


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(threads=1)


@pytest.fixture(scope="module")
def planted():
    """Features that are attributes, mixed, under noise; (n, f) and truth (n, t)."""
    random = np.random.default_rng(0)
    truth = (random.random((FACES, len(TAGS))) < 0.4).astype(np.float32)
    truth[:, 1] = 1 - truth[:, 0]
    mixed = truth @ random.normal(0, 1, (len(TAGS), FEATURES))
    noise = random.normal(0, 0.7, (FACES, FEATURES))
    return (mixed + noise).astype(np.float16), truth


@pytest.fixture(scope="module")
def lessons(planted, encoder):
    features, truth = planted
    sentences = practice(TAGS, truth[:TAUGHT], count=1_500, seed=0)
    return Lessons(
        features=features[:TAUGHT],
        persons=np.arange(TAUGHT) // 3,
        tags=TAGS,
        truth=truth[:TAUGHT],
        stated=heard_sentences([], concepts=TAGS, encoder=encoder),
        owners=np.empty(0, np.int64),
        made_up=heard_sentences(sentences, concepts=TAGS, encoder=encoder),
    )


@pytest.fixture(scope="module")
def heads(lessons):
    return train(lessons, dimension=32)


def test_sentences_find_unseen_faces_that_fit_them(heads, planted, encoder):
    features, truth = planted
    faces = heads.faces(features[TAUGHT:].astype(np.float32))
    right = {"a man with glasses": (0, 3), "a smiling woman": (1, 2), "someone bald": (6,)}
    texts = heads.texts(encoder.encode(list(right)), claims(list(right), heads.concepts))
    for text, wanted in zip(texts, right.values(), strict=True):
        best = np.argsort(-(faces @ text))[:10]
        assert truth[TAUGHT + best][:, list(wanted)].all(axis=1).mean() >= 0.9


def test_other_languages_are_heard(heads, planted, encoder):
    features, truth = planted
    faces = heads.faces(features[TAUGHT:].astype(np.float32))
    asked = ["ein Mann mit Brille", "une femme souriante"]
    said = claims(asked, heads.concepts)
    assert not said.any()
    texts = heads.texts(encoder.encode(asked), said)
    for text, wanted in zip(texts, ((0, 3), (1, 2)), strict=True):
        best = np.argsort(-(faces @ text))[:10]
        assert truth[TAUGHT + best][:, list(wanted)].all(axis=1).mean() >= 0.7


def test_attribute_heads_tell_unseen_faces_apart_and_know_how_sure_they_are(heads, planted):
    features, truth = planted
    chances = heads.chances(features[TAUGHT:].astype(np.float32))
    assert heads.tags == TAGS
    for place in range(len(TAGS)):
        assert auc(chances[:, place], truth[TAUGHT:, place] == 1) >= 0.95
        assert abs(chances[:, place].mean() - truth[TAUGHT:, place].mean()) < 0.07


def test_captions_alone_teach_without_any_attribute(lessons, planted, encoder):
    features, _ = planted
    texts = practice(TAGS, lessons.truth, count=600, seed=1)
    random = np.random.default_rng(1)
    fits = [
        np.flatnonzero(
            [
                all((row[TAGS.index(tag)] == 1) == truth for tag, truth in said.items())
                for row in lessons.truth
            ]
        )
        for said in (
            {t: c > 0 for t, c in zip(TAGS, one, strict=True) if c} for one in claims(texts, TAGS)
        )
    ]
    pairs = [
        (text, random.choice(some)) for text, some in zip(texts, fits, strict=True) if len(some)
    ]
    alone = replace(
        lessons,
        tags=(),
        truth=np.empty((TAUGHT, 0), np.float32),
        stated=heard_sentences([text for text, _ in pairs], concepts=(), encoder=encoder),
        owners=np.array([owner for _, owner in pairs]),
        made_up=heard_sentences([], concepts=(), encoder=encoder),
    )
    made = train(alone, dimension=32)
    assert made.tags == made.concepts == ()
    asked = [pairs[place] for place in range(0, len(pairs), 2)]
    texts = made.texts(encoder.encode([t for t, _ in asked]), np.empty((len(asked), 0), np.float32))
    owners = np.array([owner for _, owner in asked])
    rows, places = np.unique(owners, return_inverse=True)
    report = rank_captions(
        made.faces(features[rows].astype(np.float32)), texts,
        sentences=[t for t, _ in asked], owners=places, persons=rows, replicates=0,
    )  # fmt: skip
    assert report.text_to_face.recall_at[10].value >= 5 * 10 / len(rows)


def test_a_handful_of_faces_teaches_nothing(lessons):
    few = replace(
        lessons, features=lessons.features[:50], persons=lessons.persons[:50],
        truth=lessons.truth[:50],
    )  # fmt: skip
    with pytest.raises(UsageError, match="training needs 200"):
        train(few)


@pytest.mark.weights
def test_the_base_network_gives_the_inner_maps_of_the_identity_network():
    from retrieval.models.face_text.base import FEATURES as MAPS
    from retrieval.models.face_text.base import identity_base

    base = identity_base("research")
    session = Session(base.model, threads=1, device=Device.CPU)
    shown = np.random.default_rng(0).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    found = session.run(shown)[0]
    assert found.shape == (1, MAPS)
    # The last map, flattened, times the last layer of the network, is the identity vector.
    import onnx

    model = onnx.load_from_string(base.weights.model)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("505", onnx.TensorProto.FLOAT, None)
    )
    whole = Session(model.SerializeToString(), threads=1, device=Device.CPU)
    expected = whole.run((shown - 127.5) / 127.5)[1].reshape(-1)
    assert np.allclose(found[0, -len(expected) :], expected, atol=1e-4)
