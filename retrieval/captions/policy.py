"""Words that a sentence may not ask for: what a picture of a face cannot tell, or must not.

A face-text model answers any sentence, "a trustworthy man" too, and what it then ranks by is the
prejudice of its captions (Hausladen et al. 2025, social perception of faces in CLIP). So words of
character, crime, ability, wealth, health, religion, politics and sexuality, of ethnicity and the
colour of skin, and of attractiveness are refused, in English, German and French. They are flagged
or allowed instead where the owner says so (`trait_words_policy`), and a file (`trait_words`) adds
words, takes built-in ones away (`-word`), or all of them (`-*`).

Words of emotion (happy, angry) are not refused: they describe a look. They are read as no attribute
either. A word of the list is also found with a regular ending (thugs, ugliest); one that ends in
`*` stands for all that begins so. A list cannot be complete: it keeps honest people from asking by
mistake, and the log shows what was asked.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from retrieval.errors import RefusedWordsError, SettingError
from retrieval.settings import Settings, TraitWordsPolicy

_TRAITS: Final = """
trustworth* untrustworth* trusting honest* dishonest* sincer* insincer* liar deceitful loyal
disloyal reliab* unreliab* criminal* criminel* crime crimes kriminell* felon felony convict thug
gangster mobster murder* killer rapist thief thieves burglar robber terroris* extremis* fraud*
swindler crook crooked scammer delinquen* offender paedophil* pedophil* prostitut* hooker
drug-dealer addict addicted junkie alcoholic drunkard smuggler suspicious suspect
dangerous* threatening menacing violent* aggressive* hostile evil wicked innocent guilty
intelligen* unintelligen* stupid* dumb clever genius idiot* moron* retard* competen*
incompeten* capable incapable lazy hardworking hard-working diligent industrious ambitious confident
dominan* submissive warm-hearted cold-hearted friendly unfriendly likeable likable kind-hearted
arrogan* selfish generous greedy humble brave coward* charismatic leader leadership loser
wealthy homeless unemployed employable successful unsuccessful educated uneducated
upper-class lower-class working-class privileged unprivileged
gay lesbian homosexual* heterosexual* bisexual* transgender transsexual* queer straight-acting
promiscuous slut* whore* virgin
christian* muslim* islamic islamist* jewish jew jews hindu* buddhist* sikh* atheist* catholic*
protestant* mormon* religious devout
republican democrat conservative liberal socialist communist fascist nazi* leftist rightist
autis* schizophren* depressive mentally-ill mental-illness insane crazy psychopath* sociopath*
neurotic bipolar demented disabled sick diseased unhealthy pregnant hiv
illegal-immigrant immigrant* migrant refugee* foreigner* foreign-looking alien
vertrauenswurdig* unehrlich* ehrlich* verbrecher* gefahrlich* klug* dumm dumme dummer schlau faul
fleissig obdachlos* schwul* lesbisch* homosexuell* judisch* muslimisch* christlich* gewalttatig*
malhonnete* honnete* digne-de-confiance delinquant* dangereu* intelligent* bete stupide* paresseu*
riche* pauvre* homosexuel* juif juive* musulman* chretien* violent* fiable*
"""
_ETHNICITY: Final = """
ethnic* race racial* asian* eurasian* african* afro-american* caucasian* hispanic* latino* latina*
latinx arab* middle-eastern native-american indigenous aborigin* polynesian* melanesian* slavic
nordic-looking mediterranean-looking gypsy gypsies negro* mulatto* mixed-race biracial multiracial
people-of-color people-of-colour person-of-color person-of-colour colored-people oriental*
dark-skin* light-skin* pale-skin* fair-skin* brown-skin* black-skin* white-skin* tan-skin*
yellow-skin* olive-skin* dark-complexion* light-complexion* pale-complexion* fair-complexion*
skin-color skin-colour skin-tone
asiat* afrikan* afrikaner* kaukasisch* dunkelhautig* hellhautig* hautfarbe
asiatique* africain* caucasien* arabe* metis metisse couleur-de-peau peau-noire peau-blanche
"""
_ATTRACTIVENESS: Final = """
attractive* unattractive* beautiful* beauty handsome* ugly uglier ugliest gorgeous* sexy sexier
sexiest good-looking well-looking bad-looking hideous* cute cuter cutest lovely stunning charming
hottie babe
attraktiv* unattraktiv* hubsch* hasslich* schone-frau schoner-mann gutaussehend*
attirant* seduisant* laide laides belle-femme bel-homme jolie
"""
# Words that are harmless of hair or hats, and refused of people: "a black man", "she is pretty".
_OF_PEOPLE: Final = """
black white brown yellow colored coloured dark light pale hot pretty nice good bad rich poor smart
healthy lying indian chinese
japanese korean vietnamese filipino thai mexican cuban brazilian nigerian ethiopian somali turkish
iranian iraqi pakistani bangladeshi afghan russian polish german french italian spanish english
irish american european schwarze schwarzer weisse weisser noir noire blanc blanche
"""
_PEOPLE_WORDS: Final = """
man men woman women person people guy guys gentleman gentlemen lady ladies boy boys girl girls
child children kid kids baby babies male males female females individual individuals folk teenager
teenagers he she they who face faces skin mann frau leute
junge madchen kind homme femme garcon fille enfant
"""
_BETWEEN_WORDS: Final = "young old elderly middle aged senior bald smiling bearded chubby and very"
_LINKS: Final = frozenset({"is", "are", "looks", "look", "being", "seems"})
_PARTS_WORDS: Final = "haired hair eyed eyes bearded skinned clad dressed"
_BETWEEN_MAX: Final = 3
_ENDINGS: Final = "(?:s|es|ed|er|est|ly|ness)?"
_WORD: Final = re.compile(r"[^\W_]+")
_ALL: Final = "-*"
_PEOPLE: Final = frozenset(_PEOPLE_WORDS.split())
_BETWEEN: Final = frozenset(_BETWEEN_WORDS.split())
_PARTS: Final = frozenset(_PARTS_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What happens to a sentence that asks for what is listed."""

    action: TraitWordsPolicy
    words: tuple[str, ...]  # phrases in plain lower case; `*`: whatever follows
    of_people: frozenset[str]  # words that are refused only of people

    def check(self, sentence: str) -> tuple[str, ...]:
        """The words of the sentence that are flagged, as it spells them.

        Raises:
            RefusedWordsError: there are some, and they are refused.
        """
        if self.action == "allow":
            return ()
        found = self.found(sentence)
        if found and self.action == "refuse":
            quoted = ", ".join(f"'{word}'" for word in found)
            raise RefusedWordsError(
                f"{quoted}: a picture of a face does not tell this, and is not searched for it;"
                " describe what can be seen (the setting trait_words_policy decides)"
            )
        return found

    def found(self, sentence: str) -> tuple[str, ...]:
        """The listed words in a sentence, each once, in its order."""
        spelt = [match[0] for match in _WORD.finditer(sentence)]
        plain = [_plain(word) for word in spelt]
        told = " ".join(plain)
        places: dict[int, int] = {}  # first word -> last word
        for match in _pattern(self.words).finditer(told):
            first = told.count(" ", 0, match.start())
            places[first] = first + match[0].count(" ")
        for place, word in enumerate(plain):
            if word in self.of_people and _of_people(plain, place):
                places.setdefault(place, place)
        found = (" ".join(spelt[a : b + 1]) for a, b in sorted(places.items()))
        return tuple(dict.fromkeys(found))


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings name.

    Raises:
        SettingError: the file of words cannot be read.
    """
    added: Iterable[str] = ()
    if settings.trait_words is not None:
        try:
            added = settings.trait_words.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as cause:
            raise SettingError(
                f"trait_words: {settings.trait_words} cannot be read as text"
            ) from cause
    return policy(settings.trait_words_policy, lines=added)


def policy(action: TraitWordsPolicy = "refuse", *, lines: Iterable[str] = ()) -> Policy:
    """The built-in list, changed line by line: `word`, `two words`, `stem*`, `-word`, `-*`.

    A line that begins with `#` is a remark.

    >>> policy(lines=["-*", "banker"]).found("a beautiful banker")
    ('banker',)
    """
    words = dict.fromkeys(_built_in())
    of_people = {_plain(word) for word in _OF_PEOPLE.split()}
    for line in lines:
        told = line.partition("#")[0].strip()
        if told == _ALL:
            words, of_people = {}, set()
        elif told.startswith("-"):
            words.pop(_phrase(told[1:]), None)
            of_people.discard(_phrase(told[1:]))
        elif told:
            words[_phrase(told)] = None
    return Policy(action=action, words=tuple(words), of_people=frozenset(of_people))


def _built_in() -> list[str]:
    """The phrases of the lists; a hyphen there stands for a space."""
    lists = (_TRAITS, _ETHNICITY, _ATTRACTIVENESS)
    return [_phrase(word) for words in lists for word in words.split()]


def _phrase(told: str) -> str:
    star = "*" if told.rstrip().endswith("*") else ""
    return " ".join(_plain(word) for word in _WORD.findall(told)) + star


def _plain(word: str) -> str:
    """Lower case without accents: vertrauenswürdig -> vertrauenswurdig."""
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


@cache
def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases, the longest first."""
    found = [
        re.escape(word[:-1]) + r"\w*" if word.endswith("*") else re.escape(word) + _ENDINGS
        for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile(rf"\b(?:{'|'.join(found)})\b" if found else r"(?!)")


def _of_people(words: Sequence[str], place: int) -> bool:
    """Whether the word at `place` describes somebody: "a black man", "who is black"."""
    for word in words[place + 1 : place + 2 + _BETWEEN_MAX]:
        if word in _PEOPLE:
            return True
        if word not in _BETWEEN:
            break
    before = words[max(0, place - 2) : place]
    linked = len(before) == 2 and before[1] in _LINKS and before[0] in _PEOPLE  # noqa: PLR2004
    # "she is black haired" speaks of hair.
    return linked and (place + 1 == len(words) or words[place + 1] not in _PARTS)
