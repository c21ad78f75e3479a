"""Which words a sentence may not ask for, and who decides."""

from pathlib import Path

import pytest

from retrieval.captions.policy import policy, policy_of
from retrieval.errors import RefusedWordsError, SettingError
from retrieval.settings import Settings, configuration


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("a trustworthy man", ("trustworthy",)),
        ("Untrustworthiness, and CRIMINALS", ("Untrustworthiness", "CRIMINALS")),
        ("thugs and a criminality", ("thugs", "criminality")),
        ("an intelligent, dishonest-looking woman", ("intelligent", "dishonest")),
        ("a drug dealer", ("drug dealer",)),
        ("mentally ill", ("mentally ill",)),
        ("a young Asian lady", ("Asian",)),
        ("a black man", ("black",)),
        ("a man who is black", ("black",)),
        ("a black, smiling old woman", ("black",)),
        ("dark-skinned", ("dark skinned",)),
        ("pale skin", ("pale skin",)),
        ("the ugliest face", ("ugliest",)),
        ("she is pretty", ("pretty",)),
        ("ein vertrauenswürdiger Mann", ("vertrauenswürdiger",)),
        ("un homme malhonnête", ("malhonnête",)),
        ("a rich man", ("rich",)),
    ],
)
def test_words_of_character_ethnicity_and_attractiveness_are_found(
    sentence: str, words: tuple[str, ...]
) -> None:
    assert policy("flag").check(sentence) == words


@pytest.mark.parametrize(
    "sentence",
    [
        "a man with black hair",
        "a woman in a white dress",
        "she is black haired",
        "a pretty big nose",
        "rich brown hair in poor light",
        "a white-haired man with brown eyes",
        "a happy child",
        "a man with his arm raised",
        "a dummy in a smart suit",
        "an old man with a mustache in Christchurch",
        "",
    ],
)
def test_what_a_picture_shows_may_be_asked(sentence: str) -> None:
    assert policy("flag").check(sentence) == ()


def test_refusing_names_the_words_and_allowing_lets_all_through() -> None:
    with pytest.raises(RefusedWordsError, match=r"^'honest', 'handsome': a picture of a face"):
        policy().check("an honest and handsome man")
    assert policy("allow").check("an honest and handsome man") == ()


def test_the_owner_adds_words_takes_some_away_or_all(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# ours\nbanker\nhedge fund manag*  # any of them\n-criminal*\n-black\n")
    read = configuration({}, folder=tmp_path).settings
    assert (read.trait_words, read.trait_words_policy) == (None, "refuse")
    (tmp_path / "facedex.toml").write_text('trait_words = "words.txt"\ntrait_words_policy = "flag"')
    settings = configuration({}, folder=tmp_path).settings
    assert settings.trait_words == file
    ours = policy_of(settings)
    assert ours.check("bankers and hedge-fund managers") == ("bankers", "hedge fund managers")
    assert ours.check("a black criminal") == ()
    assert ours.check("an honest man") == ("honest",)
    file.write_text("-*\nbanker\n")
    assert policy_of(settings).check("an honest, black, asian banker") == ("banker",)


def test_a_list_that_cannot_be_read_or_an_unknown_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"trait_words: .*none.txt cannot be read"):
        policy_of(Settings(trait_words=tmp_path / "none.txt"))
    (tmp_path / "facedex.toml").write_text('trait_words_policy = "ignore"')
    with pytest.raises(SettingError, match="refuse, flag, allow"):
        configuration({}, folder=tmp_path)
