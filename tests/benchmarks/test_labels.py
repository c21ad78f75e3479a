"""The benchmark of wrong labels finds what it plants; that of galleries, whom they share."""

from benchmarks.labels import overlap, swapped


def test_planted_labels_are_found_with_the_right_person() -> None:
    line = swapped(300, 0.02)
    assert line["wrong"] == round(0.02 * line["faces"])
    assert line["mislabelled_precision"] >= 0.97
    assert line["mislabelled_recall"] >= 0.9
    assert line["right_person"] >= 0.97


def test_shared_people_are_found_and_few_others() -> None:
    line = overlap(2_000, 200)
    assert line["shared"] == 20
    assert line["found"] >= 19
    assert line["false_pairs"] <= 5
