"""Every limit of Facedex, each with its reason. Going over one is an error that names it."""

from typing import Final

from retrieval.errors import LimitExceededError

IMAGE_BYTES_MAX: Final = (
    64 * 2**20
)  # a 50-megapixel JPEG has about 15 MiB, a 16-bit PNG four times that
IMAGE_PIXELS_MAX: Final = (
    64_000_000  # decoded to RGB this takes 192 MB; a 100-megapixel bomb is refused
)
SIDECAR_BYTES_MAX: Final = 2**20  # JSON or caption beside a picture in a shard; both stay in memory
IMAGE_SIDE_MIN_PX: Final = 16  # below it no detector sees a face
FACES_PER_IMAGE_MAX: Final = 1_000  # a stadium; more means that the detector fires on noise
TAUGHT_FACES_MAX: Final = 30_000  # of one training: its features take 6 GB in memory, twice
VECTOR_DIMENSION_MAX: Final = 4_096  # beyond it a float16 row leaves its 8 KiB page
VECTOR_LENGTH_MIN: Final = 1e-6  # a shorter vector points nowhere
COUNT_MAX: Final = 10_000  # neighbours asked for in one question
FILTER_BYTES_MAX: Final = 64 * 2**10  # an IN list of some thousand ids
FILTER_DEPTH_MAX: Final = 64  # nesting; deeper trees come from generators gone wrong
FILTER_LEAVES_MAX: Final = 4_096  # leaves of one filter, IN values counted one by one
ATTRIBUTES_MAX: Final = 256  # declared attributes of one collection
KEPT_SETS_BYTES_MAX: Final = (
    64 * 2**20
)  # bitmaps of leaves that are asked for again: 50 of 10 million rows, 2,500 of 200,000
TEXT_BYTES_MAX: Final = 8 * 2**10  # one text value; B-tree entries end at a third of a page
CAPTIONS_MAX: Final = 100  # stated of one face at once; data sets have five or ten
NAME_BYTES_MAX: Final = 2_000  # an external id or a person's name: both are indexed
TAGS_MAX: Final = 1_000  # values of one array attribute of one face
FACES_PER_EVENT_MAX: Final = 1_000_000  # of one person operation: 20 MB of jsonb, and its index
PROTECTED_PERSONS_MAX: Final = (
    10_000  # each new face is compared with each of them, 4,096 faces at once
)
REFUSED_ROWS_MAX: Final = 1_000  # that an import names one by one; it counts them all
PAIRS_MAX: Final = 20_000_000  # of identities that are too alike, told one by one: 480 MB


def within(limit: int, value: int, *, what: str) -> int:
    """Give `value` back, or raise LimitExceededError."""
    if value > limit:
        raise LimitExceededError(f"{what} is {value:,}; at most {limit:,} is allowed")
    return value
