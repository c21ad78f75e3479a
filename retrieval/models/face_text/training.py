"""Training the heads of a light face-text model: CLIP's loss over frozen features and sentences.

    features (n, f) -> standardised -> whitened (n, q) -> linear -> face     (n, d)
    concepts (t,), sentences (512,)                    -> linear -> sentence (d,)

A face's captions are drawn anew in each step: some of the attributes that are true of it, as
concepts, or one of the sentences that came with it. What a sentence says of concepts is learned
apart, from many made-up sentences (light.py says why). All heads are linear in what they are given
and fold into the arrays of `LightHeads`. The loss is that of Radford et al., "Learning Transferable
Visual Models From Natural Language Supervision", 2021, by open_clip. The first directions of
features tell mostly light and pose; whitening lets the heads hear the others as loud.

Attribute heads are ridge regressions on the same whitened features, turned into chances by a
logistic curve that is fitted on people who were left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.models.face_text.gap import learned
from retrieval.models.face_text.light import LightHeads, claims
from retrieval.models.face_text.open_clip import clip_library, torch_library
from retrieval.models.face_text.sentences import DIMENSION as SENTENCE_DIMENSION
from retrieval.models.face_text.sentences import SentenceEncoder
from retrieval.values import Floats, HalfRows, unit_rows

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of all

DIMENSION: Final = 256
FACES_MIN: Final = 200  # below it nothing can be learned that holds for others
SAMPLED: Final = 3_500  # faces that the directions of the features are learned from
DIRECTIONS_MAX: Final = 1_500
WHITENING_FLOOR: Final = 1e-3  # of the largest variance, added to each
EPOCHS: Final = 30
BATCH: Final = 1_024
BATCHES_MIN: Final = 4  # an epoch: few faces make small batches
STEPS_MIN: Final = 200
RATE: Final = 3e-3
DECAY: Final = 0.05
WARM_SHARE: Final = 0.15  # of the steps, while the rate rises
DROPPED: Final = 0.4  # of the features in each step
SAID_LEAST: Final = 0.15  # of the true attributes that a made-up caption says
SAID_MOST: Final = 0.7
STATED: Final = 0.5  # of the captions of a face that has both are those that came with it
FIRST_SCALE: Final = 1 / 0.07  # CLIP's
SCALE_MAX: Final = 100.0
SENTENCES: Final = 32_000  # made-up ones: two minutes of the encoder
SENTENCES_AT_ONCE: Final = 2_048
HIDDEN: Final = 512
HEARING_EPOCHS: Final = 40
HEARING_BATCH: Final = 512
HEARING_RATE: Final = 2e-3
HEARING_DECAY: Final = 1e-3
NEWTON_STEPS: Final = 25
RIDGES: Final = (300.0, 1_000.0, 3_000.0, 10_000.0)
LEFT_OUT: Final = 0.2  # of the people, to choose the ridge and to fit chances
TRUE_MIN: Final = 20  # faces with and without an attribute, in each part, for a head


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """Sentences with what their words say."""

    sentences: Floats  # (s, 512) as the encoder gives them
    said: Floats  # (s, t) of each concept: 1, -1 or 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lessons:
    """What heads are trained on."""

    features: HalfRows  # (n, f), may be mapped
    persons: Ints  # (n,) whose faces they are
    tags: tuple[str, ...]  # t attributes, may be none
    truth: Floats  # (n, t) 1, 0, and NaN where it is not known
    stated: Told  # captions that came with the faces
    owners: Ints  # (s,) the face that each of them is about
    made_up: Told  # sentences about nobody, to learn the language of attributes from


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Whitened:
    """Features in directions that all vary alike."""

    rows: Floats  # (n, q)
    mean: Floats  # (f,)
    scale: Floats  # (f,)
    directions: Floats  # (f, q)


def train(
    lessons: Lessons,
    *,
    dimension: int = DIMENSION,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> LightHeads:
    """Heads for faces and sentences, and one for each attribute that can be learned.

    Raises:
        UsageError: too few faces have a caption or attributes.
        ModelUnavailableError: torch or open_clip is not installed.
    """
    told = (lessons.truth == 1).any(axis=1)
    told[lessons.owners] = True
    taught = np.flatnonzero(told)
    if len(taught) < FACES_MIN:
        raise UsageError(
            f"{len(taught):,} faces have a caption or attributes; training needs {FACES_MIN:,}"
        )
    torch_library().manual_seed(seed)
    whitened = _whitened(lessons.features)
    blank = _hearing(lessons, dimension=dimension, progress=progress)
    lines = _contrasted(whitened.rows, lessons, blank, taught, seed=seed, progress=progress)
    tags, tag_weights, tag_bias, thresholds = _attribute_heads(whitened.rows, lessons, seed=seed)
    heads = replace(
        blank,
        image_mean=whitened.mean,
        image_scale=whitened.scale,
        image_weights=whitened.directions @ lines.face,
        image_bias=lines.face_bias,
        concept_weights=lines.concepts,
        text_weights=lines.text,
        text_bias=lines.text_bias,
        tags=tags,
        tag_weights=whitened.directions @ tag_weights,
        tag_bias=tag_bias,
        tag_thresholds=thresholds,
    )
    faces = unit_rows(whitened.rows @ lines.face + lines.face_bias)
    spoken = [one for one in (lessons.stated, lessons.made_up) if len(one.sentences)]
    texts = np.concatenate([heads.texts(one.sentences, one.said) for one in spoken])
    gap = learned(faces, unit_rows(texts))
    return replace(heads, gap_faces=gap.faces, gap_texts=gap.texts)


def _whitened(features: HalfRows) -> _Whitened:
    """Standardise, and turn to the directions that vary most, each of about the same variance.

    The directions are those of some of the faces: of all of them they take five times as long.
    """
    rows = np.array(features, np.float32)
    mean = rows.mean(axis=0)
    scale = rows.std(axis=0) + np.float32(1e-6)
    rows -= mean
    rows /= scale
    step = -(-len(rows) // SAMPLED)
    sample = rows[::step]
    sizes, sides = np.linalg.eigh(sample @ sample.T)
    count = min(DIRECTIONS_MAX, len(sample) // 2, rows.shape[1])
    directions = sample.T @ (sides[:, -count:] / np.sqrt(np.maximum(sizes[-count:], 1e-6)))
    turned = rows @ directions
    variances = turned.var(axis=0)
    loudness = 1 / np.sqrt(variances + WHITENING_FLOOR * variances.max())
    return _Whitened(
        rows=turned * loudness, mean=mean, scale=scale, directions=directions * loudness
    )


def _hearing(lessons: Lessons, *, dimension: int, progress: Progress) -> LightHeads:
    """Heads that know what sentences say of concepts, and nothing of faces yet."""
    told = [one for one in (lessons.made_up, lessons.stated) if len(one.sentences)]
    sentences = np.concatenate([one.sentences for one in told])
    mean: Floats = sentences.mean(axis=0, dtype=np.float64).astype(np.float32)
    said = np.concatenate([one.said for one in told])
    heard = _heard(sentences - mean, said, progress=progress) if lessons.tags else _DEAF
    none = np.zeros(0, np.float32)
    return LightHeads(
        image_mean=none,
        image_scale=none,
        image_weights=np.zeros((0, dimension), np.float32),
        image_bias=np.zeros(dimension, np.float32),
        text_mean=mean,
        concepts=lessons.tags,
        **heard._asdict(),
        concept_weights=np.zeros((len(lessons.tags), dimension), np.float32),
        text_weights=np.zeros((SENTENCE_DIMENSION, dimension), np.float32),
        text_bias=np.zeros(dimension, np.float32),
        gap_faces=np.zeros(dimension, np.float32),
        gap_texts=np.zeros(dimension, np.float32),
        tags=(),
        tag_weights=np.zeros((0, 0), np.float32),
        tag_bias=none,
        tag_thresholds=none,
    )


class _Heard(NamedTuple):
    """The network from centred sentences to concepts, by the names of `LightHeads`."""

    hidden_weights: Floats
    hidden_bias: Floats
    heard_weights: Floats
    heard_direct: Floats
    heard_bias: Floats


_NONE: Final[Floats] = np.zeros(0, np.float32)
_DEAF: Final = _Heard(
    hidden_weights=np.zeros((SENTENCE_DIMENSION, 0), np.float32),
    hidden_bias=_NONE,
    heard_weights=np.zeros((0, 0), np.float32),
    heard_direct=np.zeros((SENTENCE_DIMENSION, 0), np.float32),
    heard_bias=_NONE,
)


def _heard(sentences: Floats, claimed: Floats, *, progress: Progress) -> _Heard:
    """Learn to hear in centred sentences (s, 512) what they claim, (s, t)."""
    t = torch_library()
    said = t.from_numpy(claimed)
    seen = t.from_numpy(sentences)
    scale = float(seen.std())
    hidden = t.nn.Linear(SENTENCE_DIMENSION, HIDDEN)
    heard = t.nn.Linear(HIDDEN, said.shape[1])
    direct = t.nn.Linear(SENTENCE_DIMENSION, said.shape[1], bias=False)
    t.nn.init.zeros_(heard.weight)
    layers = t.nn.ModuleList([hidden, heard, direct])
    steps = HEARING_EPOCHS * -(-len(seen) // HEARING_BATCH)
    optimiser, schedule = _optimiser(layers, rate=HEARING_RATE, decay=HEARING_DECAY, steps=steps)
    places = t.empty(0, dtype=t.long)
    for step in range(steps):
        if not len(places):
            places = t.randperm(len(seen))
        chosen, places = places[:HEARING_BATCH], places[HEARING_BATCH:]
        given = seen[chosen] / scale
        wrong = heard(t.relu(hidden(given))) + direct(given) - said[chosen]
        _step(wrong.square().mean(), optimiser, schedule)
        progress("lesson", step + 1, steps)
    hidden_weights, hidden_bias = _arrays(hidden)
    heard_weights, heard_bias = _arrays(heard)
    return _Heard(
        hidden_weights=hidden_weights / scale,
        hidden_bias=hidden_bias,
        heard_weights=heard_weights,
        heard_direct=_weights(direct) / scale,
        heard_bias=heard_bias,
    )


class _Lines(NamedTuple):
    """The linear heads."""

    face: Floats  # (q, d)
    face_bias: Floats  # (d,)
    concepts: Floats  # (t, d)
    text: Floats  # (512, d)
    text_bias: Floats  # (d,)


def _contrasted(
    rows: Floats,
    lessons: Lessons,
    hearing: LightHeads,
    taught: Ints,
    *,
    seed: int,
    progress: Progress,
) -> _Lines:
    """Train the linear heads on the faces that have something said of them."""
    t = torch_library()
    dimension = len(hearing.text_bias)
    face = t.nn.Linear(rows.shape[1], dimension)
    concepts = t.nn.Linear(max(1, len(lessons.tags)), dimension)  # none is one that is never said
    text = t.nn.Linear(SENTENCE_DIMENSION, dimension, bias=False)
    if not len(lessons.owners):
        t.nn.init.zeros_(text.weight)
    scale = t.nn.Parameter(t.tensor(float(np.log(FIRST_SCALE))))
    layers = t.nn.ModuleList([face, concepts, text])
    batch = min(BATCH, len(taught) // BATCHES_MIN)
    steps = max(EPOCHS * (len(taught) // batch), STEPS_MIN)
    optimiser, schedule = _optimiser(layers, rate=RATE, decay=DECAY, steps=steps, also=[scale])
    loss_of, random = clip_library().ClipLoss(), np.random.default_rng(seed)
    captions = _Captions(lessons, hearing, random)
    places = np.empty(0, np.int64)
    for step in range(steps):
        if len(places) < batch:
            places = random.permutation(taught)
        chosen, places = places[:batch], places[batch:]
        claimed, seen = captions.drawn(chosen)
        looks = face(t.nn.functional.dropout(t.from_numpy(rows[chosen]), DROPPED))
        if not lessons.tags:
            claimed = np.zeros((len(chosen), 1), np.float32)
        words = concepts(t.from_numpy(claimed)) + text(t.from_numpy(seen))
        unit = t.nn.functional.normalize
        _step(
            loss_of(unit(looks), unit(words), scale.exp().clamp(max=SCALE_MAX)),
            optimiser,
            schedule,
        )
        progress("step", step + 1, steps)
    concept_weights, text_bias = _arrays(concepts)
    return _Lines(*_arrays(face), concept_weights[: len(lessons.tags)], _weights(text), text_bias)


class _Captions:
    """Captions of faces, drawn anew each time: as concepts, and as what the encoder gives."""

    def __init__(self, lessons: Lessons, hearing: LightHeads, random: np.random.Generator) -> None:
        self._truth = lessons.truth
        self._random = random
        stated = lessons.stated
        self._seen = stated.sentences - hearing.text_mean
        self._claimed = (hearing.heard(stated.sentences) + stated.said) / 2
        self._order = np.argsort(lessons.owners, kind="stable")
        everybody = np.arange(len(lessons.truth) + 1)
        self._first = np.searchsorted(lessons.owners[self._order], everybody)

    def drawn(self, faces: Ints) -> tuple[Floats, Floats]:
        """Concepts (b, t) and centred sentences (b, 512) of one caption of each face."""
        random, truth = self._random, self._truth[faces]
        said = random.uniform(SAID_LEAST, SAID_MOST, (len(faces), 1))
        chance = random.random(truth.shape)
        claimed = ((truth == 1) & (chance < said)).astype(np.float32)
        seen = np.zeros((len(faces), SENTENCE_DIMENSION), np.float32)
        counts = self._first[faces + 1] - self._first[faces]
        unknown = ~(truth == 1).any(axis=1)
        by_words = (counts > 0) & (unknown | (random.random(len(faces)) < STATED))
        mine = self._first[faces[by_words]] + random.integers(0, counts[by_words])
        claimed[by_words] = self._claimed[self._order[mine]]
        seen[by_words] = self._seen[self._order[mine]]
        return claimed, seen


def _optimiser(
    layers: Any, *, rate: float, decay: float, steps: int, also: Sequence[Any] = ()
) -> tuple[Any, Any]:
    """AdamW, which lets weights decay and biases not, and its rate over the steps."""
    t = torch_library()
    named = list(layers.named_parameters())
    weights = [value for name, value in named if name.endswith("weight")]
    others = [value for name, value in named if not name.endswith("weight")]
    optimiser = t.optim.AdamW(
        [
            {"params": weights, "weight_decay": decay},
            {"params": [*others, *also], "weight_decay": 0.0},
        ],
        lr=rate,
    )
    schedule = t.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps + 1, pct_start=WARM_SHARE
    )
    return optimiser, schedule


def _step(loss: Any, optimiser: Any, schedule: Any) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()


def _weights(layer: Any) -> Floats:
    """Weights (in, out) of a linear layer."""
    weights: Floats = np.ascontiguousarray(layer.weight.detach().numpy().T)
    return weights


def _arrays(layer: Any) -> tuple[Floats, Floats]:
    """Weights (in, out) and bias (out,) of a linear layer."""
    return _weights(layer), layer.bias.detach().numpy()


def _attribute_heads(
    rows: Floats, lessons: Lessons, *, seed: int
) -> tuple[tuple[str, ...], Floats, Floats, Floats]:
    """Tags (a,), weights (q, a), bias (a,) and thresholds (a,) of what can be learned."""
    people = np.unique(lessons.persons)
    mixed = np.random.default_rng(seed).permutation(people)
    held = np.isin(lessons.persons, mixed[: round(LEFT_OUT * len(people))])
    known = ~np.isnan(lessons.truth)
    enough = np.array([_enough(lessons.truth[part], known[part]) for part in (held, ~held)])
    told = np.flatnonzero(enough.all(axis=0))
    if not len(told):
        return (), np.empty((rows.shape[1], 0), np.float32), _NONE, _NONE
    truth, known = lessons.truth[:, told], known[:, told]
    scores = _ridge(rows, truth, known, ~held)
    fitted = [
        _chances(scores.rows[held & known[:, place], place], truth[held & known[:, place], place])
        for place in range(len(told))
    ]
    slopes, shifts, thresholds = np.array(fitted, np.float32).reshape(-1, 3).T
    weights: Floats = (scores.weights * slopes).astype(np.float32)
    return tuple(lessons.tags[place] for place in told), weights, shifts, thresholds


def _enough(truth: Floats, known: Flags) -> Flags:
    """Which attributes are true of some faces and false of some, (a,)."""
    true = np.count_nonzero(known & (truth == 1), axis=0)
    enough: Flags = np.minimum(true, known.sum(axis=0) - true) >= TRUE_MIN
    return enough


class _Scores(NamedTuple):
    """What ridge regression says of every face."""

    rows: Floats  # (n, a)
    weights: Floats  # (q, a)


def _ridge(rows: Floats, truth: Floats, known: Flags, taught: Flags) -> _Scores:
    """Regression of all attributes at once; the others of the taught faces choose how stiff.

    What is not known of a face is taken for the mean: it pulls to neither side.
    """
    means = np.nanmean(truth, axis=0)
    wanted = np.where(known, truth - means, 0).astype(np.float32)
    mine, asked = rows[taught], rows[~taught]
    gram, moments = mine.T @ mine, mine.T @ wanted[taught]
    errors, found = [], []
    for ridge in RIDGES:
        weights = np.linalg.solve(gram + np.eye(len(gram), dtype=np.float32) * ridge, moments)
        found.append(weights)
        errors.append(float((np.square(asked @ weights - wanted[~taught]) * known[~taught]).mean()))
    best: Floats = found[int(np.argmin(errors))].astype(np.float32)
    return _Scores(rows @ best, best)


def _chances(scores: Floats, truth: Floats) -> tuple[float, float, float]:
    """Slope and shift of the logistic curve through the scores (Platt 1999), and a threshold.

    The threshold is the chance from which on the tag is given: the one with the best F1.
    """
    inputs = np.stack([scores, np.ones_like(scores)], axis=1).astype(np.float64)
    curve = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-inputs @ curve))
        weights = chances * (1 - chances)
        bend = (inputs * weights[:, None]).T @ inputs + 1e-6 * np.eye(2)
        curve = curve + np.linalg.solve(bend, inputs.T @ (truth - chances) - 1e-6 * curve)
    order = np.argsort(-scores)
    right = np.cumsum(truth[order])
    scores_of = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    last = scores[order[int(np.argmax(scores_of))]]
    return float(curve[0]), float(curve[1]), float(1 / (1 + np.exp(-(curve[0] * last + curve[1]))))


def heard_sentences(
    texts: Sequence[str],
    *,
    concepts: Sequence[str],
    encoder: SentenceEncoder,
    progress: Progress = lambda *_: None,
) -> Told:
    """Sentences as training takes them."""
    rows = [np.empty((0, SENTENCE_DIMENSION), np.float32)]
    for begin in range(0, len(texts), SENTENCES_AT_ONCE):
        some = texts[begin : begin + SENTENCES_AT_ONCE]
        rows.append(encoder.encode(some))
        progress("sentence", begin + len(some), len(texts))
    return Told(sentences=np.concatenate(rows), said=claims(texts, concepts))
