"""The listing of a real data set: LFW, 13,233 pictures of 5,749 people in a compressed tar."""

from pathlib import Path

import pytest

from indexer.sources.listing import list_pictures
from indexer.sources.pictures import Picture, SourceOptions, read_bytes


@pytest.mark.data
def test_lfw_is_listed_whole_from_its_archive(data_dir: Path) -> None:
    archive = data_dir / "lfw" / "lfw_deepfunneled.tar.gz"
    entries = list_pictures([archive], options=SourceOptions(person_from_folder=True, frames=True))
    people: set[str | None] = set()
    count = 0
    for picture in entries:
        assert isinstance(picture, Picture)
        assert read_bytes(picture)[:2] == b"\xff\xd8"
        # A picture is called Ann_Lee_0003.jpg, which is what oracle there is for its facts.
        assert (
            f"{picture.facts.person}_{picture.facts.frame:04}.jpg"
            == Path(picture.member or "").name
        )
        people.add(picture.facts.person)
        count += 1
    assert (count, len(people)) == (13_233, 5_749)
