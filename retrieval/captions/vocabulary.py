"""The attributes of a face that can be said: tags, names of columns, words.

One table. A tag is what stands in `tags` (`'glasses' = ANY(tags)`); a column is what data sets call
it (CelebA's 40 attributes, LFWA+'s 40 and 73: Liu et al. 2015, Kumar et al. 2009); words are how
English says it. What is sensitive (retrieval/fields.py) has no line here, so it can be neither said
nor read. Smiling and frowning are movements that a picture shows, and have lines; what they might
mean (happy, angry) is emotion, and has none. Narrow eyes or a big nose are shapes and have lines;
the colour of skin stands for ethnicity in too many sentences, and has none.

A quality is an adjective of a feature: `big` of `nose`. Qualities of one feature are said together
("curly brown hair"), so their words are kept apart from the feature's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.values import Value

Flags = npt.NDArray[np.bool_]
Cell = Value | np.generic  # of a row: True and False, 1 and 0, or real numbers about zero

MALE: Final = "male"
FEMALE: Final = "female"
CHILD: Final = "child"
BABY: Final = "baby"


class Kind(StrEnum):
    """How a sentence says an attribute."""

    SEX = "sex"  # by its noun: a woman
    AGE = "age"  # an old man; a boy
    STATE = "state"  # a bald man; he is bald
    DOES = "does"  # he smiles; he is smiling
    QUALITY = "quality"  # an adjective of a feature: a big nose
    HAS = "has"  # a man with a beard
    WEARS = "wears"  # a man wearing a hat
    PICTURE = "picture"  # the picture is blurry


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A part of a face that has qualities."""

    said: tuple[str, ...]  # nouns
    heard: tuple[str, ...] = ()  # nouns that are understood and not said
    one: bool = False  # takes "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute."""

    tag: str
    kind: Kind
    said: tuple[str, ...]  # words; of DOES participles; of HAS and WEARS with their article
    heard: tuple[str, ...] = ()  # further words that mean it
    columns: tuple[str, ...] = ()  # names in data sets beside the tag; "!NAME": it is the opposite
    feature: str | None = None  # of a QUALITY
    adjectives: tuple[str, ...] = ()  # that say it before the noun: a bearded man
    verbs: tuple[str, ...] = ()  # of DOES, in the order of `said`: smiles


FEATURES: Final[Mapping[str, Feature]] = {
    "hair": Feature(said=("hair",), heard=("haired", "hairs")),
    "hairline": Feature(said=("hairline",), one=True),
    "forehead": Feature(said=("forehead",), one=True),
    "eyebrows": Feature(said=("eyebrows", "brows"), heard=("eyebrow",)),
    "eyes": Feature(said=("eyes",), heard=("eyed",)),
    "nose": Feature(said=("nose",), heard=("nosed",), one=True),
    "cheeks": Feature(said=("cheeks",), heard=("cheeked",)),
    "cheekbones": Feature(said=("cheekbones",)),
    "lips": Feature(said=("lips",), heard=("lipped",)),
    "mouth": Feature(said=("mouth",), heard=("mouthed",), one=True),
    "face": Feature(said=("face",), heard=("faced",), one=True),
    "chin": Feature(said=("chin",), heard=("chinned",), one=True),
    "jaw": Feature(said=("jaw", "jawline"), heard=("jawed",), one=True),
    "skin": Feature(said=("skin",), heard=("skinned",)),
}


def _quality(
    tag: str,
    feature: str,
    said: tuple[str, ...],
    *,
    heard: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    adjectives: tuple[str, ...] = (),
) -> Attribute:
    return Attribute(
        tag=tag,
        kind=Kind.QUALITY,
        feature=feature,
        said=said,
        heard=heard,
        columns=columns,
        adjectives=adjectives,
    )


ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    Attribute(
        tag=MALE,
        kind=Kind.SEX,
        said=("man", "gentleman"),
        heard=(
            "male",
            "men",
            "gentlemen",
            "males",
            "guy",
            "guys",
            "fellow",
            "he",
            "him",
            "his",
            "himself",
        ),
        columns=("!Female",),
    ),
    Attribute(
        tag=FEMALE,
        kind=Kind.SEX,
        said=("woman", "lady"),
        heard=("female", "women", "ladies", "females", "she", "her", "hers", "herself"),
        columns=("!Male",),
    ),
    Attribute(
        tag=BABY,
        kind=Kind.AGE,
        said=("baby",),
        heard=("babies", "infant", "infants", "toddler", "toddlers", "newborn"),
    ),
    Attribute(
        tag=CHILD,
        kind=Kind.AGE,
        said=("child", "kid"),
        heard=("children", "kids", "childlike"),
    ),
    Attribute(
        tag="young",
        kind=Kind.AGE,
        said=("young", "youthful"),
        heard=("youth", "youngster", "teenager", "teenage", "teen"),
        columns=("Youth",),
    ),
    Attribute(tag="middle aged", kind=Kind.AGE, said=("middle-aged",), heard=("midlife",)),
    Attribute(
        tag="senior",
        kind=Kind.AGE,
        said=("old", "elderly", "senior"),
        heard=("older", "seniors", "pensioner"),
    ),
    Attribute(tag="bald", kind=Kind.STATE, said=("bald",), heard=("bald-headed", "baldheaded")),
    Attribute(
        tag="chubby",
        kind=Kind.STATE,
        said=("chubby", "plump"),
        heard=("overweight", "chubby face", "chubby cheeks"),
    ),
    Attribute(
        tag="smiling",
        kind=Kind.DOES,
        said=("smiling", "grinning"),
        verbs=("smiles", "grins"),
        heard=("smile", "grin", "beaming", "laughing", "laughs", "smiley"),
        adjectives=("smiling", "grinning"),
    ),
    Attribute(
        tag="frowning",
        kind=Kind.DOES,
        said=("frowning", "scowling"),
        verbs=("frowns", "scowls"),
        heard=("frown", "scowl"),
        adjectives=("frowning",),
    ),
    _quality("black hair", "hair", ("black",), heard=("jet-black", "raven")),
    _quality(
        "blond hair",
        "hair",
        ("blond", "blonde", "fair"),
        heard=("golden", "flaxen"),
        adjectives=("blond",),
    ),
    _quality("brown hair", "hair", ("brown", "chestnut"), heard=("brunette", "auburn")),
    _quality(
        "gray hair", "hair", ("gray", "grey"), heard=("white", "silver", "graying", "greying")
    ),
    _quality("straight hair", "hair", ("straight",), heard=("sleek",)),
    _quality("wavy hair", "hair", ("wavy",)),
    _quality("curly hair", "hair", ("curly",), heard=("frizzy", "curled")),
    Attribute(
        tag="bangs",
        kind=Kind.HAS,
        said=("bangs", "a fringe"),
        heard=("fringes",),
    ),
    _quality("receding hairline", "hairline", ("receding",), heard=("retreating",)),
    _quality(
        "visible forehead", "forehead", ("fully visible",), columns=("Fully_Visible_Forehead",)
    ),
    _quality(
        "partly visible forehead",
        "forehead",
        ("partly visible",),
        heard=("partially visible",),
        columns=("Partially_Visible_Forehead",),
    ),
    _quality(
        "covered forehead",
        "forehead",
        ("covered", "hidden"),
        heard=("obstructed",),
        columns=("Obstructed_Forehead",),
    ),
    _quality("bushy eyebrows", "eyebrows", ("bushy", "thick"), heard=("heavy", "dense")),
    _quality("arched eyebrows", "eyebrows", ("arched", "curved")),
    _quality("narrow eyes", "eyes", ("narrow",), heard=("narrowed", "squinting")),
    _quality("brown eyes", "eyes", ("brown",)),
    _quality("open eyes", "eyes", ("open",), columns=("Eyes_Open",)),
    Attribute(
        tag="bags under the eyes",
        kind=Kind.HAS,
        said=("bags under the eyes", "under-eye bags"),
        heard=(
            *("bags under eyes", "bags under his eyes", "bags under her eyes", "eye bags"),
            *("bags below the eyes", "bags under their eyes"),
        ),
        columns=("Bags_Under_Eyes",),
    ),
    _quality("big nose", "nose", ("big", "large"), heard=("broad", "huge", "wide")),
    _quality("pointy nose", "nose", ("pointed", "pointy"), heard=("sharp",)),
    _quality("rosy cheeks", "cheeks", ("rosy", "pink"), heard=("red",)),
    _quality("high cheekbones", "cheekbones", ("high", "prominent")),
    Attribute(
        tag="strong nose-mouth lines",
        kind=Kind.HAS,
        said=("strong nose-mouth lines", "deep lines from nose to mouth"),
        heard=("smile lines", "laugh lines"),
    ),
    _quality("big lips", "lips", ("full", "big"), heard=("thick", "large", "plump")),
    _quality("closed mouth", "mouth", ("closed", "shut"), columns=("Mouth_Closed",)),
    _quality(
        "mouth slightly open",
        "mouth",
        ("slightly open", "half-open"),
        heard=("partly open", "ajar", "slightly opened"),
    ),
    _quality("mouth wide open", "mouth", ("wide-open", "gaping"), heard=("widely open",)),
    Attribute(
        tag="visible teeth",
        kind=Kind.HAS,
        said=("visible teeth", "teeth on show"),
        heard=("showing teeth", "showing his teeth", "showing her teeth", "toothy"),
        columns=("!Teeth_Not_Visible",),
    ),
    _quality("oval face", "face", ("oval",)),
    _quality("round face", "face", ("round",)),
    _quality("square face", "face", ("square",)),
    _quality("flushed face", "face", ("flushed",), heard=("reddened",)),
    _quality("round jaw", "jaw", ("round", "rounded")),
    _quality("double chin", "chin", ("double",)),
    _quality("shiny skin", "skin", ("shiny", "glossy")),
    Attribute(
        tag="beard",
        kind=Kind.HAS,
        said=("a beard",),
        heard=("beards", "facial hair", "full beard"),
        columns=("!No_Beard",),
        adjectives=("bearded",),
    ),
    Attribute(
        tag="mustache",
        kind=Kind.HAS,
        said=("a mustache", "a moustache"),
        heard=("mustached", "moustached", "mustachioed", "mustaches", "moustaches"),
    ),
    Attribute(
        tag="goatee",
        kind=Kind.HAS,
        said=("a goatee", "a chin beard"),
        heard=("goatee beard", "goateed"),
    ),
    Attribute(
        tag="stubble",
        kind=Kind.HAS,
        said=("stubble", "a five o'clock shadow"),
        heard=("5 o'clock shadow", "stubbly", "unshaven", "5 o clock shadow"),
        columns=("5_o_Clock_Shadow",),
    ),
    Attribute(
        tag="sideburns", kind=Kind.HAS, said=("sideburns", "side whiskers"), heard=("sideburn",)
    ),
    Attribute(
        tag="glasses",
        kind=Kind.WEARS,
        said=("glasses", "eyeglasses", "spectacles"),
        heard=("specs", "reading glasses", "eye glasses"),
        columns=("Eyeglasses",),
        adjectives=("bespectacled",),
    ),
    Attribute(
        tag="sunglasses",
        kind=Kind.WEARS,
        said=("sunglasses", "dark glasses"),
        heard=("shades", "sun glasses"),
    ),
    Attribute(
        tag="eyewear", kind=Kind.WEARS, said=("eyewear",), heard=(), columns=("!No_Eyewear",)
    ),
    Attribute(
        tag="hat",
        kind=Kind.WEARS,
        said=("a hat", "headgear"),
        heard=("hats", "a cap", "a beanie", "a baseball cap", "headwear", "a bonnet", "a helmet"),
        columns=("Wearing_Hat",),
    ),
    Attribute(
        tag="necktie",
        kind=Kind.WEARS,
        said=("a tie", "a necktie"),
        heard=("ties", "neckties"),
        columns=("Wearing_Necktie",),
    ),
    Attribute(
        tag="earrings",
        kind=Kind.WEARS,
        said=("earrings", "ear jewelry"),
        heard=("an earring", "ear rings", "ear jewellery"),
        columns=("Wearing_Earrings",),
    ),
    Attribute(
        tag="necklace",
        kind=Kind.WEARS,
        said=("a necklace", "a neck chain"),
        heard=("necklaces",),
        columns=("Wearing_Necklace",),
    ),
    Attribute(
        tag="lipstick",
        kind=Kind.WEARS,
        said=("lipstick", "lip color"),
        heard=("lip colour", "painted lips"),
        columns=("Wearing_Lipstick",),
    ),
    Attribute(
        tag="heavy makeup",
        kind=Kind.WEARS,
        said=("heavy makeup", "a lot of makeup"),
        heard=("makeup", "make-up", "heavy make-up", "thick makeup", "lots of makeup"),
    ),
    Attribute(
        tag="blurry",
        kind=Kind.PICTURE,
        said=("blurry", "out of focus"),
        heard=("blurred", "unsharp"),
    ),
    Attribute(
        tag="color photo",
        kind=Kind.PICTURE,
        said=("in color",),
        heard=("color photo", "colour photo", "in colour", "color picture", "colour picture"),
    ),
    Attribute(
        tag="posed photo", kind=Kind.PICTURE, said=("posed",), heard=("posed photo", "posing")
    ),
    Attribute(
        tag="outdoors",
        kind=Kind.PICTURE,
        said=("taken outdoors", "taken outside"),
        heard=("outdoors", "outside", "outdoor"),
        columns=("Outdoor",),
    ),
    Attribute(
        tag="flash",
        kind=Kind.PICTURE,
        said=("taken with flash",),
        heard=("with flash", "flash"),
    ),
    Attribute(
        tag="harsh lighting",
        kind=Kind.PICTURE,
        said=("harshly lit",),
        heard=("taken in harsh light", "harsh light", "in harsh light", "harsh lighting"),
    ),
    Attribute(
        tag="soft lighting",
        kind=Kind.PICTURE,
        said=("softly lit",),
        heard=("taken in soft light", "soft light", "in soft light", "soft lighting"),
    ),
)
BY_TAG: Final[Mapping[str, Attribute]] = {one.tag: one for one in ATTRIBUTES}
# Words that say that something is not there.
DENYING: Final[Mapping[str, tuple[str, ...]]] = {
    "clean-shaven": ("beard", "mustache", "goatee", "stubble"),
    "clean shaved": ("beard", "mustache", "goatee", "stubble"),
    "no facial hair": ("beard", "mustache", "goatee", "stubble"),
    "beardless": ("beard",),
    "hatless": ("hat",),
    "bareheaded": ("hat",),
    "unsmiling": ("smiling",),
}
# Nouns that say sex and age at once.
NOUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "boy": (MALE, CHILD),
    "boys": (MALE, CHILD),
    "girl": (FEMALE, CHILD),
    "girls": (FEMALE, CHILD),
    "baby boy": (MALE, BABY),
    "baby girl": (FEMALE, BABY),
    "schoolboy": (MALE, CHILD),
    "schoolgirl": (FEMALE, CHILD),
    "grandfather": (MALE, "senior"),
    "grandmother": (FEMALE, "senior"),
    "blonde": ("blond hair",),
    "brunette": ("brown hair",),
}
# Words that look like one of ours and are none: "20 years old".
INNOCENT: Final = ("years old", "year old", "old fashioned", "black and white")
GENDERS: Final[Mapping[str, str]] = {MALE: MALE, FEMALE: FEMALE}  # values of the field `gender`


def _key(name: str) -> str:
    """A name without case, `_`, `-` and spaces."""
    return "".join(letter for letter in name.casefold() if letter not in "_- ")


_COLUMNS: Final[Mapping[str, tuple[tuple[str, bool], ...]]] = {
    key: tuple(
        (one.tag, not column.startswith("!"))
        for one in ATTRIBUTES
        for column in (one.tag, *one.columns)
        if _key(column.lstrip("!")) == key
    )
    for key in {_key(c.lstrip("!")) for one in ATTRIBUTES for c in (one.tag, *one.columns)}
}


def tags_of_column(name: str) -> tuple[tuple[str, bool], ...]:
    """The tags that a column tells: each with the truth that a true cell gives it.

    >>> tags_of_column("No_Beard"), tags_of_column("wearing hat"), tags_of_column("Attractive")
    ((('beard', False),), (('hat', True),), ())
    """
    return _COLUMNS.get(_key(name), ())


def attributes_of_row(row: Mapping[str, Cell]) -> dict[str, bool]:
    """What the typed values of one face say of attributes, by tag.

    Numbers above zero are true (LFWA gives real numbers); `gender` says the sex, `tags` name
    what is true, and columns without a line in the table are passed over.

    >>> attributes_of_row({"Male": -0.7, "No_Beard": 1, "Attractive": 1, "city": "Rome"})
    {'male': False, 'female': True, 'beard': False}
    """
    found: dict[str, bool] = {}
    for name, value in row.items():
        if isinstance(value, tuple):
            found |= {tag: True for tag in value if tag in BY_TAG}
        elif isinstance(value, str):
            if name == "gender" and value in GENDERS:
                found |= {MALE: value == MALE, FEMALE: value == FEMALE}
        elif isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
            found |= {tag: (value > 0) == same for tag, same in tags_of_column(name)}
    return _sexes(found)


def attributes_of_columns(
    names: Sequence[str], cells: npt.NDArray[Any]
) -> tuple[tuple[str, ...], Flags]:
    """The same for a whole table: tags (t,) and their truth, (n, t).

    Args:
        names: (c,) columns; where two tell the same tag, the last one counts.
        cells: (n, c) numbers; above zero is true.

    Raises:
        UsageError: names and columns are not as many, or no column tells a tag.
    """
    if cells.ndim != 2 or cells.shape[1] != len(names):  # noqa: PLR2004  (rows and columns)
        raise UsageError(f"{len(names)} names do not fit a table of shape {cells.shape}")
    told = {
        tag: (place, same) for place, name in enumerate(names) for tag, same in tags_of_column(name)
    }
    if not told:
        raise UsageError(f"none of these columns is an attribute of a face: {', '.join(names)}")
    tags = tuple(one.tag for one in ATTRIBUTES if one.tag in told)
    places = [told[tag][0] for tag in tags]
    same = np.array([told[tag][1] for tag in tags])
    return tags, (cells[:, places] > 0) == same


def tags_of(attributes: Mapping[str, bool]) -> tuple[str, ...]:
    """What is true, in the order of the table."""
    return tuple(one.tag for one in ATTRIBUTES if attributes.get(one.tag))


def _sexes(found: dict[str, bool]) -> dict[str, bool]:
    """One sex that is true makes the other false."""
    for one, other in ((MALE, FEMALE), (FEMALE, MALE)):
        if found.get(one):
            found.setdefault(other, False)
    return found
