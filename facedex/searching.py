"""Finding faces and captions: by a face, by words, or by both. What `Facedex.searching` gives.

A face is looked for among identities, words and looks among face-text vectors; each is one question
to one index, and both together are one composed question (retrieval/composing.py). Where captions
are searched for words as well, the two rankings are fused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from retrieval.captions.policy import policy_of
from retrieval.captions.practice import made_sentences
from retrieval.captions.strict import strict
from retrieval.composing import (
    Composed,
    Part,
    compose,
    fused,
    sampled,
    similarities_of,
    spread,
    weights,
)
from retrieval.errors import (
    LicenceError,
    ModelUnavailableError,
    SpaceMismatchError,
    StoreConflictError,
    UsageError,
)
from retrieval.filters.tree import Filter
from retrieval.index.exact import Hits
from retrieval.index.rule import DEFAULT_RECALL
from retrieval.limits import COUNT_MAX, TEXT_BYTES_MAX, within
from retrieval.plan import Recall
from retrieval.reader import Reader
from retrieval.search import Answer, GroupBy, Question
from retrieval.store.captions import Caption, caption_records, matching
from retrieval.store.faces import FaceRecord, face_records
from retrieval.store.holdings import Holding, Kind
from retrieval.values import (
    CaptionId,
    Collection,
    FaceId,
    FaceIds,
    Similarity,
    Token,
    UnitRows,
    unit_rows,
)

if TYPE_CHECKING:
    from facedex.handle import Facedex

HYDRATE_ATTEMPTS: Final = 3
WEIGHT: Final = 0.5  # of words against a face
# How much of what is not meant is taken from what is. Of the 20 best among looks made of CelebA's
# rows, .72 have both attributes wanted and not the one denied; .64 at 0, .66 at 1.
DENIED: Final = 0.5
RANKED_MIN: Final = 100  # places of rankings that are fused; later ones would add next to nothing
SENTENCES: Final = 1_280  # that an index of looks is measured with
FACE, TEXT = "identity", "text"  # how the parts of a composed question are called
KINDS: Final = {FACE: Kind.FACES, TEXT: Kind.LOOKS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is looked for: at least one of the first five, in any combination.

    Attributes:
        face: (n, d) unit rows in the identity space: who is meant. More than one: each alone.
        text: a sentence that fits.
        not_text: a sentence that does not fit.
        like: (1, d) unit row in the face-text space: somebody who looks so.
        words: words that a caption of the face holds, as in web searches ("in quotes", or, -).
        weight: the share of text and look against the face: 0 asks for the face only, 1 for the
            others only.
        strict: what the sentences say of attributes becomes a condition on tags.
        where: an SQL condition (DESIGN.md section 4).
        count: at most COUNT_MAX.
        recall: a share such as 0.95, "certified" or "exact".
        min_similarity: leave out hits below this similarity.
        group_by: keep the best hit of each person, or of each track; a face without stands alone.
        after: the token of a write that the answer has to show.
    """

    face: UnitRows | None = None
    text: str | None = None
    not_text: str | None = None
    like: UnitRows | None = None
    words: str | None = None
    weight: float = WEIGHT
    strict: bool = False
    where: str | None = None
    count: int = 10
    recall: Recall = DEFAULT_RECALL
    min_similarity: float | None = None
    group_by: GroupBy | None = None
    after: int | None = None

    def __post_init__(self) -> None:
        """Check what a caller may get wrong."""
        within(COUNT_MAX, self.count, what="the number of hits asked for")
        if not 0.0 <= self.weight <= 1.0:
            raise UsageError("weight is from 0 (the face only) to 1 (the words only)")
        for sentence in self.sentences:
            within(TEXT_BYTES_MAX, len(sentence.encode()), what="the bytes of a sentence")
            if not sentence.strip():
                raise UsageError("a sentence is empty")
        if self.face is None and self.words is None and not self.speaks:
            raise UsageError("name a face, a sentence, a look or words to search for")
        if self.face is not None and len(self.face) != 1 and (self.speaks or self.words):
            raise UsageError("words go with one face, not with several at once")

    @property
    def speaks(self) -> bool:
        """Whether something is asked in the face-text space."""
        return any(one is not None for one in (self.text, self.not_text, self.like))

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that was written."""
        return tuple(one for one in (self.text, self.not_text, self.words) if one is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer with all that is known of the face."""

    similarity: Similarity | None  # None: found by words alone, nothing was compared
    record: FaceRecord
    parts: Mapping[str, Similarity] = field(default_factory=dict)  # of a composed question
    fused: float | None = None  # the sum of reciprocal ranks, where captions were searched, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gives back: hits for each probe, best first, and how they were found."""

    hits: list[list[Hit]]
    answer: Answer | Composed | None  # None: only captions were searched, for words
    worded: int | None = None  # faces with the words in a caption, as far as they were ranked
    flagged: tuple[str, ...] = ()  # words that the policy of trait words names
    where: str | None = None  # the condition, with what strict sentences were turned into


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionHit:
    """A caption that was found."""

    similarity: Similarity
    caption: Caption


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCaptions:
    """The same for captions."""

    hits: list[CaptionHit]
    answer: Answer
    flagged: tuple[str, ...] = ()
    where: str | None = None


class Searching:
    """Questions about the faces and captions of the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    def faces(self, asking: Asking) -> Found:
        """The faces that fit best among those that pass.

        With a face and words, only faces that have a vector in both spaces can be found.

        Raises:
            RefusedWordsError: a sentence asks what the policy refuses.
            UnknownNameError: words are asked and the collection has no face-text space.
            TokenTimeoutError: the write that `after` names did not become visible in time.
        """
        flagged = self._flagged(asking)
        where, said = _conditions(asking)
        search = self._search(asking, where, said)
        for _ in range(HYDRATE_ATTEMPTS):
            answer, ranked, worded = self._ranked(search)
            hits = self._hits(search, ranked)
            if hits is not None:
                return Found(hits=hits, answer=answer, worded=worded, flagged=flagged, where=where)
        raise StoreConflictError("faces were deleted while they were looked for. Search again")

    def captions(self, asking: Asking) -> FoundCaptions:
        """The captions that fit best what is asked by sentences or a look; errors as of `faces`."""
        if asking.face is not None or asking.words is not None:
            raise UsageError("captions are found by a sentence or a look, not by an identity")
        flagged = self._flagged(asking)
        where, said = _conditions(asking)
        tenant = self._facedex.collection()
        index = self._index(tenant, Kind.CAPTIONS, after=asking.after)
        question = _question(asking, self._spoken(said), self._filter(where, index.holding))
        for _ in range(HYDRATE_ATTEMPTS):
            index.refresh()
            answer = index.search(question)
            found = _pairs(answer.hits[0])
            with self._facedex.store.reading() as connection:
                known = caption_records(connection, map(CaptionId, found), collection=tenant)
            if len(known) == len(found):
                hits = [
                    CaptionHit(similarity=Similarity(near), caption=known[CaptionId(one)])
                    for one, near in found.items()
                ]
                return FoundCaptions(hits=hits, answer=answer, flagged=flagged, where=where)
        raise StoreConflictError("captions were deleted while they were looked for. Search again")

    def questions_like(self, holding: Holding) -> Callable[[], UnitRows | None]:
        """Vectors like the questions that an index is asked, where these are unlike its rows.

        Looks are asked for by sentences: as the captions that are there, or else some that are
        made. Captions are asked for by looks.
        """
        return partial(self._questions_like, holding)

    # --- inside ------------------------------------------------------------------------------

    def _questions_like(self, holding: Holding) -> UnitRows | None:
        if holding.kind in (Kind.FACES, Kind.PERSONS):
            return None  # asked for by faces, which are like them
        others = Kind.LOOKS if holding.kind is Kind.CAPTIONS else Kind.CAPTIONS
        index = self._index(holding.collection, others, after=None)
        index.refresh()
        vectors = sampled(index.view, count=SENTENCES)
        if len(vectors) >= SENTENCES // 2:
            return unit_rows(vectors)
        if others is Kind.LOOKS:
            return None
        try:
            encoder = self._facedex.words.encoder()
        except (LicenceError, ModelUnavailableError, SpaceMismatchError):
            return None  # nobody can ask by sentences here, either
        return encoder.of_texts(made_sentences(SENTENCES))

    def _flagged(self, asking: Asking) -> tuple[str, ...]:
        policy = policy_of(self._facedex.settings)
        return tuple(word for sentence in asking.sentences for word in policy.check(sentence))

    def _search(self, asking: Asking, where: str | None, said: Asking) -> "_Search":
        tenant = self._facedex.collection()
        vectors: dict[str, UnitRows] = {}
        if asking.face is not None and not (asking.speaks and asking.weight == 1.0):
            vectors[FACE] = asking.face
        if asking.speaks and not (asking.face is not None and asking.weight == 0.0):
            vectors[TEXT] = self._spoken(said)
        filter_ = self._filter(where, self._facedex.holding(tenant, Kind.FACES))
        return _Search(
            asking=asking,
            tenant=tenant,
            vectors=vectors,
            indexes={
                name: self._index(tenant, KINDS[name], after=asking.after) for name in vectors
            },
            filter=filter_,
        )

    def _spoken(self, asking: Asking) -> UnitRows:
        """What is asked in the face-text space, (1, d)."""
        terms = [] if asking.like is None else [asking.like[0]]
        if asking.text is not None or asking.not_text is not None:
            encoder = self._facedex.words.encoder()
            terms += [] if asking.text is None else [encoder.of_texts([asking.text])[0]]
            if asking.not_text is not None:
                denied = encoder.of_texts([asking.not_text])[0]
                terms.append(-(DENIED if terms else 1.0) * denied)
        return unit_rows(np.sum(terms, axis=0, dtype=np.float64))

    def _index(self, tenant: Collection, kind: Kind, *, after: int | None) -> Reader:
        index = self._facedex.opened(self._facedex.holding(tenant, kind))
        if after is not None:
            index.wait_for(Token(after), timeout_s=self._facedex.settings.after_timeout_s)
        return index

    def _filter(self, where: str | None, holding: Holding) -> Filter | None:
        from retrieval.filters.parse import parse

        return None if where is None else parse(where, holding.fields())

    def _ranked(
        self, search: "_Search"
    ) -> tuple[Answer | Composed | None, list["_Ranking"], int | None]:
        """The answer, the faces of each probe in order, and how many captions hold the words."""
        for index in search.indexes.values():
            index.refresh()
        answer, rankings = search.ranked()
        if search.asking.words is None:
            return answer, rankings, None
        with self._facedex.store.reading() as connection:
            worded = matching(
                connection,
                search.asking.words,
                collection=search.tenant,
                filter_=search.filter,
                count=search.depth,
            )
        return answer, [search.with_words(rankings, np.array(worded, np.int64))], len(worded)

    def _hits(self, search: "_Search", rankings: Sequence["_Ranking"]) -> list[list[Hit]] | None:
        """The hits with their records; None where one was deleted since the index saw it."""
        faces = sorted({FaceId(face) for ranking in rankings for face in ranking.faces})
        with self._facedex.store.reading() as connection:
            records = face_records(connection, faces, collection=search.tenant)
        if len(records) < len(faces):
            return None
        return [ranking.told(records, search.asking) for ranking in rankings]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranking:
    """Faces in the order in which they are told, with what is known of why."""

    faces: list[FaceId]
    similarities: Mapping[int, float]
    parts: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    fused: Mapping[int, float] | None = None

    def told(self, records: Mapping[FaceId, FaceRecord], asking: Asking) -> list[Hit]:
        """The hits; of a fused ranking, what was asked of hits is still to be kept."""
        hits = [self._hit(records[face]) for face in self.faces]
        if self.fused is None:
            return hits
        least = asking.min_similarity
        if least is not None:
            hits = [hit for hit in hits if hit.similarity is not None and hit.similarity >= least]
        if asking.group_by is not None:
            hits = _first_of_groups(hits, asking.group_by)
        return hits[: asking.count]

    def _hit(self, record: FaceRecord) -> Hit:
        near = self.similarities.get(record.face)
        return Hit(
            similarity=None if near is None else Similarity(near),
            record=record,
            parts={
                name: Similarity(of_faces[record.face])
                for name, of_faces in self.parts.items()
                if record.face in of_faces
            },
            fused=None if self.fused is None else self.fused[record.face],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """A question with all that stays the same while it is asked again."""

    asking: Asking
    tenant: Collection
    vectors: Mapping[str, UnitRows]  # by part
    indexes: Mapping[str, Reader]
    filter: Filter | None

    @property
    def depth(self) -> int:
        """Of rankings that are fused."""
        return min(max(2 * self.asking.count, RANKED_MIN), COUNT_MAX)

    def ranked(self) -> tuple[Answer | Composed | None, list[_Ranking]]:
        """What the vectors find."""
        if not self.vectors:
            return None, []
        question = _question(self.asking, next(iter(self.vectors.values())), self.filter)
        if self.asking.words is not None:
            question = replace(question, count=self.depth, min_similarity=None, group_by=None)
        if len(self.vectors) == 1:
            [index] = self.indexes.values()
            answer = index.search(question)
            return answer, [_ranking(hits) for hits in answer.hits]
        composed = compose(self._parts(), question)
        return composed, [_ranking(composed.hits, dict(zip(self.vectors, composed.similarities,
                                                           strict=True)))]  # fmt: skip

    def with_words(self, rankings: Sequence[_Ranking], worded: FaceIds) -> _Ranking:
        """The ranking by vectors, if there is one, fused with that of captions."""
        found = [np.array(one.faces, np.int64) for one in rankings]
        joined = fused([*found, worded], count=sum(map(len, found)) + len(worded))
        if not rankings:
            return replace(_ranking(joined), similarities={}, fused=_pairs(joined))
        scored = similarities_of(self._parts(), self.filter, joined.ids)
        columns = dict(zip(self.vectors, scored.columns, strict=True))
        ranking = _ranking(Hits(scored.ids, scored.means), columns if len(columns) > 1 else {})
        return replace(ranking, faces=_faces(joined), fused=_pairs(joined))

    def _parts(self) -> list[Part]:
        """The parts of the question, each with its weight."""
        views = [index.view for index in self.indexes.values()]
        shares: tuple[float, ...] = (1.0,)
        if len(views) > 1:
            shares = weights(self.asking.weight, (spread(views[0]), spread(views[1])))
        return [
            Part(view=view, vector=vector, weight=share, ask=index.search_in)
            for view, vector, share, index in zip(
                views, self.vectors.values(), shares, self.indexes.values(), strict=True
            )
        ]


def _conditions(asking: Asking) -> tuple[str | None, Asking]:
    """The filter, and what is ranked by: strict sentences are divided between the two."""
    if not asking.strict:
        return asking.where, asking
    wheres = [] if asking.where is None else [f"({asking.where})"]
    said = asking
    if asking.text is not None:
        told = strict(asking.text)
        wheres += [told.where] if told.where else []
        said = replace(said, text=told.rest or asking.text)
    if asking.not_text is not None:
        told = strict(asking.not_text)
        wheres += [f"NOT ({told.where})"] if told.where else []
        ranks = told.where is None or (asking.text is None and asking.like is None)
        said = replace(said, not_text=told.rest or (asking.not_text if ranks else None))
    return " AND ".join(wheres) or None, said


def _question(asking: Asking, vectors: UnitRows, filter_: Filter | None) -> Question:
    least = asking.min_similarity
    return Question(
        vectors=vectors,
        count=asking.count,
        filter=filter_,
        recall=asking.recall,
        min_similarity=None if least is None else Similarity(least),
        group_by=asking.group_by,
    )


def _ranking(hits: Hits, parts: Mapping[str, np.ndarray] | None = None) -> _Ranking:
    return _Ranking(
        faces=_faces(hits),
        similarities=_pairs(hits),
        parts={name: _pairs(Hits(hits.ids, column)) for name, column in (parts or {}).items()},
    )


def _faces(hits: Hits) -> list[FaceId]:
    return [FaceId(face) for face in hits.ids.tolist()]


def _pairs(hits: Hits) -> dict[int, float]:
    """Similarities by face, in order."""
    return dict(zip(hits.ids.tolist(), hits.similarities.tolist(), strict=True))


def _first_of_groups(hits: Sequence[Hit], by: GroupBy) -> list[Hit]:
    """The first hit of each person or track, and every hit without one."""
    first: dict[object, Hit] = {}
    for hit in hits:
        record = hit.record
        group = record.person_id if by == "person" else record.attributes.get("track")
        first.setdefault(("face", record.face) if group is None else group, hit)
    return list(first.values())
