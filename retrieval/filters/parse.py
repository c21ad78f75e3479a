"""The text form of a filter: an SQL WHERE expression, read against a whitelist, and written back.

sqlglot's PostgreSQL tokenizer splits the text; the grammar below is the whitelist. sqlglot's own
parser was tried and is not used: it forgets where a literal stood, takes `a == 1` and `IN (1,)`,
makes one thing of `DATE 'x'` and the cast `'x'::date`, runs out of stack at 60 parentheses, and
needs four times as long (470 against 125 us for the filter in DESIGN.md section 4).

    expression  = conjunction {OR conjunction}
    conjunction = negation {AND negation}
    negation    = NOT negation | '(' expression ')' | predicate
    predicate   = field [condition] | literal operator field | literal '=' ANY '(' field ')'
                | TRUE | FALSE
    condition   = operator literal | [NOT] BETWEEN literal AND literal | [NOT] LIKE literal
                | [NOT] IN '(' [literal {',' literal}] ')'
                | IS [NOT] (NULL | TRUE | FALSE | UNKNOWN)
    literal     = text | [-|+] number | TRUE | FALSE | :parameter
                | (DATE | TIMESTAMP | TIMESTAMPTZ) text

No arithmetic, functions, casts or subqueries. Messages repeat names and words, never the contents
of a literal: those may be a person's name.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, ParamSpec, TypeVar, assert_never

from sqlglot import Token, TokenType
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import TokenError

from retrieval.errors import FilterError, LimitExceededError
from retrieval.fields import Fields
from retrieval.filters.literals import DESCRIPTIONS, Given, Literal, number, timestamp
from retrieval.filters.names import no_such_field, shown
from retrieval.filters.tree import (
    And,
    Compare,
    Constant,
    Field,
    Filter,
    Has,
    IsNull,
    Leaf,
    OneOf,
    Operator,
    Or,
    Parameter,
    Prefix,
    all_of,
    any_of,
    between,
    compare,
    has,
    is_null,
    like,
    negate,
    one_of,
    parameter,
    pattern_of,
)
from retrieval.limits import FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_LEAVES_MAX, within
from retrieval.values import FieldType

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OPERATORS: Final = {**{o.value: o for o in Operator}, "!=": Operator.UNEQUAL}
# Words that name no field unless they are quoted.
_RESERVED: Final = frozenset(("AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "ANY"))
_CONSTANTS: Final = {"TRUE": True, "FALSE": False}
_PUNCTUATION: Final = frozenset(
    {
        TokenType.L_PAREN,
        TokenType.R_PAREN,
        TokenType.COMMA,
        TokenType.EQ,
        TokenType.NEQ,
        TokenType.LT,
        TokenType.LTE,
        TokenType.GT,
        TokenType.GTE,
        TokenType.DASH,
        TokenType.PLUS,
        TokenType.DOT,
        TokenType.COLON,
    }
)
_NAMES: Final = frozenset({TokenType.VAR, TokenType.IDENTIFIER})
_SHOWN: Final = _PUNCTUATION | _NAMES | {TokenType.NUMBER}
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_CLOSED_QUOTES: Final = re.compile(r"""'[^']*'|"[^"]*"|/\*.*?\*/""", re.DOTALL)
_OPEN_QUOTE: Final = re.compile(r"""['"]|/\*""")


class _Tokenizer(Postgres.Tokenizer):
    """PostgreSQL's strings, names and numbers; what a word means is the grammar's business."""

    KEYWORDS = {o: Postgres.Tokenizer.KEYWORDS[o] for o in ("<>", "!=", "<=", ">=")}  # noqa: RUF012
    COMMANDS = set()  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class _Written:
    """A literal or parameter, and the place of the first token that wrote it."""

    value: Given | Parameter
    place: int


def parse(text: str, fields: Fields) -> Filter:
    """The filter that an SQL WHERE expression over these fields means.

    Raises:
        FilterError: the text is no such filter; the message points at the word that is wrong.
    """
    try:
        within(FILTER_BYTES_MAX, len(text.encode()), what="the length of a filter in bytes")
        return _Reader(text, fields).whole()
    except LimitExceededError as cause:
        raise FilterError(str(cause)) from None
    except UnicodeEncodeError:
        raise FilterError("the filter is no valid Unicode text") from None


def render(filter_: Filter) -> str:
    """The text form of a filter; parsing it gives an equal filter."""
    match filter_:
        case And(parts):
            written = (f"({render(p)})" if isinstance(p, Or) else render(p) for p in parts)
            return " AND ".join(written)
        case Or(parts):
            return " OR ".join(render(part) for part in parts)
        case _:
            return _rendered_leaf(filter_)


class _Reader:
    """One reading of one text, from left to right, one token ahead; any error ends it."""

    def __init__(self, text: str, fields: Fields) -> None:
        self._text = text
        self._fields = fields
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0
        self._leaves = 0
        self._negated = False  # whether an odd number of NOTs stands before what is read now

    def whole(self) -> Filter:
        """The filter, if nothing follows it."""
        filter_ = self._expression()
        if self._place < len(self._tokens):
            raise self._expected("AND, OR or the end")
        return filter_

    def _expression(self) -> Filter:
        parts = [self._conjunction()]
        while self._take("OR"):
            parts.append(self._conjunction())
        return all_of(parts) if self._negated else any_of(parts)

    def _conjunction(self) -> Filter:
        parts = [self._negation()]
        while self._take("AND"):
            parts.append(self._negation())
        return any_of(parts) if self._negated else all_of(parts)

    def _negation(self) -> Filter:
        within(FILTER_DEPTH_MAX, self._depth, what="the nesting of a filter")
        self._depth += 1
        if self._take("NOT"):
            self._negated = not self._negated
            read = self._negation()
            self._negated = not self._negated
        elif self._take("("):
            read = self._expression()
            self._require(")")
        else:
            read = negate(self._predicate()) if self._negated else self._predicate()
        self._depth -= 1
        return read

    def _predicate(self) -> Filter:
        self._count_leaf()
        written = self._literal_or_none()
        if written is None:
            return self._condition(self._field())
        if self._peek() in _OPERATORS:
            return self._mirrored_condition(written)
        if isinstance(written.value, bool):
            return Constant(written.value)
        raise self._error("a literal alone decides nothing: compare it with a field", written.place)

    def _mirrored_condition(self, written: _Written) -> Filter:
        """What follows a literal: an operator and a field, or `= ANY(field)`."""
        operator = _OPERATORS[self._next()]
        if self._peek() != "ANY":
            field = self._field()
            return self._made(written.place, compare, field, operator.mirrored, written.value)
        if operator is not Operator.EQUAL:
            raise self._expected("a field, since only = goes with ANY,")
        self._next()
        self._require("(")
        place = self._place
        field = self._field()
        self._require(")")
        return self._made(place, has, field, written.value)

    def _condition(self, field: Field) -> Filter:
        """What follows a field; nothing does where it is true or false itself."""
        place = self._place
        if self._peek() in _OPERATORS:
            operator, written = _OPERATORS[self._next()], self._literal()
            return self._made(written.place, compare, field, operator, written.value)
        if self._take("IS"):
            return self._test(field)
        if self._take("NOT"):
            return negate(self._worded_condition(field))
        if self._peek() in ("BETWEEN", "IN", "LIKE"):
            return self._worded_condition(field)
        if field.type is not FieldType.BOOLEAN and not self._at_end_of_predicate():
            raise self._expected("a comparison, IN, BETWEEN, LIKE or IS")
        return self._made(place - 1, _flag, field)

    def _worded_condition(self, field: Field) -> Filter:
        match self._peek():
            case "BETWEEN":
                return self._between(field)
            case "IN":
                return self._one_of(field)
            case "LIKE":
                self._next()
                written = self._literal()
                return self._made(written.place, like, field, written.value)
            case _:
                raise self._expected("BETWEEN, IN or LIKE")

    def _between(self, field: Field) -> Filter:
        self._count_leaf()
        self._next()
        low = self._literal()
        self._made(low.place, compare, field, Operator.AT_LEAST, low.value)
        self._require("AND")
        high = self._literal()
        return self._made(high.place, between, field, low.value, high.value)

    def _one_of(self, field: Field) -> Filter:
        place = self._place
        self._next()
        self._require("(")
        values: list[Given | Parameter] = []
        while not self._take(")"):
            if values:
                self._require(",")
                self._count_leaf()
            written = self._literal()
            self._made(written.place, one_of, field, [written.value])
            values.append(written.value)
        return self._made(place, one_of, field, values)

    def _test(self, field: Field) -> Filter:
        """What follows IS. The tests for TRUE and FALSE are FALSE for NULL, not NULL."""
        negated = self._take("NOT")
        place, word = self._place, self._next()
        match word:
            case "NULL":
                test = is_null(field)
            case "UNKNOWN":
                self._made(place, _flag, field)
                test = is_null(field)
            case "TRUE" | "FALSE":
                flag = self._made(place, _flag, field)
                flag = flag if _CONSTANTS[word] else negate(flag)
                test = all_of([flag, negate(is_null(field))])
            case _:
                raise self._error("expected NULL, TRUE or FALSE here", place)
        return negate(test) if negated else test

    def _field(self) -> Field:
        """The field that the next word names: as it is written, else in lower case as in SQL."""
        place = self._place
        token = self._tokens[place] if place < len(self._tokens) else None
        if token is None or token.token_type not in _NAMES or self._peek() in _RESERVED:
            raise self._expected("a field")
        self._place += 1
        quoted = token.token_type is TokenType.IDENTIFIER
        for name in (token.text,) if quoted else (token.text, token.text.lower()):
            if name in self._fields:
                return Field(name, self._fields[name])
        if self._peek() == "(":
            raise self._error("functions are not part of a filter", place)
        hint = "; text is written in 'single quotes'" if quoted else ""
        raise self._error(no_such_field(token.text, self._fields) + hint, place)

    def _literal(self) -> _Written:
        written = self._literal_or_none()
        if written is not None:
            return written
        if self._peek() == "NULL":
            raise self._error("nothing equals NULL: use IS NULL", self._place)
        if self._is(TokenType.IDENTIFIER):
            raise self._error("text is written in 'single quotes'", self._place)
        if self._peek() == "ANY":
            raise self._error("the literal comes first: 'x' = ANY(tags)", self._place)
        raise self._expected("a literal, since fields are compared with literals only,")

    def _literal_or_none(self) -> _Written | None:
        """The next literal; None where something else begins, and then nothing was read."""
        place, word = self._place, self._peek()
        if self._is(TokenType.STRING):
            return _Written(self._text_of_next(), place)
        if self._is(TokenType.NUMBER) or word in ("-", "+", "."):
            return _Written(self._number(), place)
        if word in _CONSTANTS:
            return _Written(_CONSTANTS[self._next()], place)
        if word == ":":
            self._next()
            if not self._is(TokenType.VAR):
                raise self._expected("the name of a parameter")
            return _Written(self._made(place, parameter, self._text_of_next()), place)
        if word in _MOMENTS and self._is(TokenType.STRING, ahead=1):
            self._next()
            return _Written(self._made(place, _MOMENTS[word], self._text_of_next()), place)
        return None

    def _number(self) -> Decimal:
        """A number with at most one sign; the tokenizer splits `.5` in two."""
        place = self._place
        negative = self._take("-")
        if not negative:
            self._take("+")
        point = "." if self._take(".") else ""
        if not self._is(TokenType.NUMBER):
            raise self._expected("a number")
        value = self._made(place, number, point + self._text_of_next())
        return value.copy_negate() if negative else value

    def _peek(self) -> str:
        """The next word in capitals, or the next sign; "" at the end and before what is quoted."""
        if self._place >= len(self._tokens):
            return ""
        token = self._tokens[self._place]
        if token.token_type is TokenType.VAR:
            return token.text.upper()
        return token.text if token.token_type in _PUNCTUATION else ""

    def _next(self) -> str:
        word = self._peek()
        self._place += 1
        return word

    def _text_of_next(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1].text

    def _take(self, word: str) -> bool:
        """Step over the next word if it is this one."""
        taken = self._peek() == word
        self._place += taken
        return taken

    def _require(self, word: str) -> None:
        if not self._take(word):
            raise self._expected(word)

    def _is(self, type_: TokenType, *, ahead: int = 0) -> bool:
        place = self._place + ahead
        return place < len(self._tokens) and self._tokens[place].token_type is type_

    def _at_end_of_predicate(self) -> bool:
        return self._place == len(self._tokens) or self._peek() in ("AND", "OR", ")")

    def _count_leaf(self) -> None:
        self._leaves += 1
        within(FILTER_LEAVES_MAX, self._leaves, what="the number of leaves of a filter")

    def _made(self, place: int, make: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `make` makes; its error is told with this place."""
        try:
            return make(*args, **kwargs)
        except FilterError as error:
            raise self._error(str(error), place) from None

    def _expected(self, what: str) -> FilterError:
        return self._error(f"expected {what} here", self._place)

    def _error(self, message: str, place: int) -> FilterError:
        if place >= len(self._tokens):
            return FilterError(f"at the end of the filter: {message}")
        token = self._tokens[place]
        # The contents of a text are not repeated: it may be a person's name.
        word = f" ({shown(token.text)})" if token.token_type in _SHOWN else ""
        return FilterError(f"at character {token.start + 1}{word}: {message}")


def _tokens(text: str) -> list[Token]:
    try:
        return _Tokenizer().tokenize(text)
    except TokenError:
        # sqlglot's message repeats the text around the place, without saying where it is.
        closed = _CLOSED_QUOTES.sub(lambda quoted: " " * len(quoted[0]), text)
        opened = _OPEN_QUOTE.search(closed)
        where = f"at character {opened.start() + 1}: " if opened else ""
        raise FilterError(f"{where}this quotation is not closed, or cannot be read") from None


def _flag(field: Field) -> Filter:
    if field.type is not FieldType.BOOLEAN:
        kind = DESCRIPTIONS[field.type]
        raise FilterError(f'the field "{field.name}" is {kind}, not true or false: compare it')
    return compare(field, Operator.EQUAL, True)  # noqa: FBT003 - a literal like any other


def _date(written: str) -> datetime:
    if len(written) != len("2024-05-31"):
        raise FilterError("a DATE is written '2024-05-31'")
    return timestamp(written)


def _naive_timestamp(written: str) -> datetime:
    """PostgreSQL ignores the offset of a TIMESTAMP; here it is refused."""
    moment = timestamp(written)
    if re.search(r"[0-9:](Z|[+-][0-9:]+)$", written[len("2024-05-31") :]):
        raise FilterError("a TIMESTAMP names no offset: write TIMESTAMPTZ")
    return moment


_MOMENTS: Final[dict[str, Callable[[str], datetime]]] = {
    "DATE": _date,
    "TIMESTAMP": _naive_timestamp,
    "TIMESTAMPTZ": timestamp,
}


def _rendered_leaf(leaf: Leaf) -> str:  # noqa: PLR0911 - one for each kind
    match leaf:
        case Constant(value):
            return "TRUE" if value else "FALSE"
        case Compare(field, Operator.EQUAL, bool(value)):
            return _name(field) if value else f"NOT {_name(field)}"
        case Compare(field, operator, value):
            return f"{_name(field)} {operator} {_rendered(value)}"
        case OneOf(field, values, negated):
            listed = ", ".join(_rendered(value) for value in values)
            return f"{_name(field)} {'NOT ' * negated}IN ({listed})"
        case IsNull(field, negated):
            return f"{_name(field)} IS {'NOT ' * negated}NULL"
        case Prefix(field, prefix, negated):
            pattern = pattern_of(prefix) if isinstance(prefix, str) else prefix
            return f"{_name(field)} {'NOT ' * negated}LIKE {_rendered(pattern)}"
        case Has(field, tag, negated):
            return f"{'NOT ' * negated}{_rendered(tag)} = ANY({_name(field)})"
        case _:
            assert_never(leaf)


def _rendered(value: Literal | Parameter) -> str:
    match value:
        case Parameter(name):
            return f":{name}"
        case bool():
            return "TRUE" if value else "FALSE"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case datetime():
            return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
        case int() | float():
            return repr(value)
        case _:
            assert_never(value)


def _name(field: Field) -> str:
    plain = _PLAIN_NAME.fullmatch(field.name) and not _meaning(field.name.upper())
    return field.name if plain else '"' + field.name.replace('"', '""') + '"'


def _meaning(word: str) -> bool:
    return word in _RESERVED or word in _CONSTANTS or word in _MOMENTS
