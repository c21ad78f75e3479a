"""The table of attributes: names of columns, truth of cells, what is left out."""

import numpy as np
import pytest

from retrieval.captions.vocabulary import (
    ATTRIBUTES,
    BY_TAG,
    FEATURES,
    Kind,
    attributes_of_columns,
    attributes_of_row,
    tags_of,
    tags_of_column,
)
from retrieval.errors import UsageError
from retrieval.fields import SENSITIVE

CELEBA_NAMES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair
Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair
Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face
Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair
Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""
LFWA_73_NAMES = """
Male Asian White Black Baby Child Youth Middle_Aged Senior Black_Hair Blond_Hair Brown_Hair Bald
No_Eyewear Eyeglasses Sunglasses Mustache Smiling Frowning Chubby Blurry Harsh_Lighting Flash
Soft_Lighting Outdoor Curly_Hair Wavy_Hair Straight_Hair Receding_Hairline Bangs Sideburns
Fully_Visible_Forehead Partially_Visible_Forehead Obstructed_Forehead Bushy_Eyebrows Arched_Eyebrows
Narrow_Eyes Eyes_Open Big_Nose Pointy_Nose Big_Lips Mouth_Closed Mouth_Slightly_Open Mouth_Wide_Open
Teeth_Not_Visible No_Beard Goatee Round_Jaw Double_Chin Wearing_Hat Oval_Face Square_Face Round_Face
Color_Photo Posed_Photo Attractive_Man Attractive_Woman Indian Gray_Hair Bags_Under_Eyes
Heavy_Makeup Rosy_Cheeks Shiny_Skin Pale_Skin 5_o_Clock_Shadow Strong_Nose-Mouth_Lines
Wearing_Lipstick Flushed_Face High_Cheekbones Brown_Eyes Wearing_Earrings Wearing_Necktie
Wearing_Necklace
"""
CELEBA, LFWA_73 = CELEBA_NAMES.split(), LFWA_73_NAMES.split()


@pytest.mark.parametrize("columns", [CELEBA, LFWA_73])
def test_a_column_of_celeba_or_lfwa_is_either_an_attribute_or_sensitive(columns: list[str]) -> None:
    assert len(columns) in (40, 73)
    for name in columns:
        assert bool(tags_of_column(name)) != (name.lower() in SENSITIVE), name


def test_what_is_sensitive_has_no_words() -> None:
    for spelt in SENSITIVE:
        assert attributes_of_row({spelt: 1}) == {}
        assert spelt not in BY_TAG


@pytest.mark.parametrize("name", ["No_Beard", "no beard", "NoBeard", "NO_BEARD"])
def test_a_column_is_known_whatever_its_case_and_joints_and_may_deny_its_tag(name: str) -> None:
    assert attributes_of_row({name: 0}) == {"beard": True}
    assert attributes_of_row({name: 1}) == {"beard": False}


@pytest.mark.parametrize(
    ("cell", "truth"),
    [(0.3, True), (-2.5, False), (1, True), (0, False), (-1, False), (True, True), (None, None)],
)
def test_a_cell_above_zero_is_true(cell, truth) -> None:
    assert attributes_of_row({"Wearing_Hat": cell}).get("hat") is truth


def test_gender_and_tags_of_a_face_say_attributes_and_strangers_are_passed_over() -> None:
    row = {"gender": "female", "tags": ("glasses", "vip"), "age": 31.0, "city": "Male"}
    assert attributes_of_row(row) == {"female": True, "male": False, "glasses": True}


def test_a_table_says_what_its_rows_say() -> None:
    random = np.random.default_rng(0)
    names = [*CELEBA, "noise"]
    cells = random.normal(size=(50, len(names)))
    tags, truth = attributes_of_columns(names, cells)
    assert truth.shape == (50, len(tags))
    assert len(tags) == 39  # 38 columns, of which Male gives two tags
    for row, flags in zip(cells, truth, strict=True):
        expected = attributes_of_row(dict(zip(names, row, strict=True)))
        assert dict(zip(tags, flags.tolist(), strict=True)) == expected


def test_a_table_without_attributes_or_of_other_width_is_refused() -> None:
    with pytest.raises(UsageError, match="none of these columns"):
        attributes_of_columns(["Attractive", "city"], np.zeros((2, 2)))
    with pytest.raises(UsageError, match="2 names do not fit"):
        attributes_of_columns(["Male", "Bald"], np.zeros((2, 3)))


def test_true_tags_come_in_the_order_of_the_table() -> None:
    assert tags_of({"hat": True, "beard": False, "male": True, "vip": True}) == ("male", "hat")


def test_each_line_of_the_table_is_whole() -> None:
    assert len(BY_TAG) == len(ATTRIBUTES)
    for one in ATTRIBUTES:
        assert one.tag == one.tag.lower()
        assert (one.feature in FEATURES) == (one.kind is Kind.QUALITY)
        assert len(one.verbs) == (len(one.said) if one.kind is Kind.DOES else 0)
