"""Files, folders, globs and frame folders: what is listed, in which order, and what is refused."""

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.sources.listing import list_pictures
from indexer.sources.pictures import (
    Facts,
    Picture,
    Refused,
    SourceOptions,
    printable,
    read_bytes,
    storable,
)
from retrieval.errors import RefusedImageError, UsageError
from retrieval.limits import IMAGE_BYTES_MAX, SIDECAR_BYTES_MAX, TEXT_BYTES_MAX

PLAIN = SourceOptions()


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def listed(
    paths: Sequence[str | Path], *, options: SourceOptions = PLAIN
) -> list[Picture | Refused]:
    return list(list_pictures(paths, options=options))


def pictures(paths: Sequence[str | Path], *, options: SourceOptions = PLAIN) -> list[Picture]:
    """What is listed; nothing may be refused."""
    listing = listed(paths, options=options)
    assert [entry for entry in listing if isinstance(entry, Refused)] == []
    return [entry for entry in listing if isinstance(entry, Picture)]


def names(paths: Sequence[str | Path], *, root: Path) -> list[str]:
    return [str(picture.path.relative_to(root)) for picture in pictures(paths)]


def refusals(paths: Sequence[str | Path]) -> dict[str, str]:
    return {str(e.path): e.reason for e in listed(paths) if isinstance(e, Refused)}


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of one's own, as a user whom permissions bind: root reads everything."""
    with TemporaryDirectory() as folder:
        user = os.geteuid()
        if user == 0:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_a_folder_gives_its_pictures_in_byte_order_of_their_whole_paths(tmp_path: Path) -> None:
    made = ["b/1.jpg", "b.jpg", "b-1.png", "a.JPEG", "B/x.Tif", "b/0/z.webp", "é.gif", "z.bmp"]
    make(tmp_path, *made, "notes.txt", "b/shard.tar", "noise")
    assert names([tmp_path], root=tmp_path) == sorted(made, key=os.fsencode)


def test_a_named_file_is_tried_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "picture", "b.txt")
    assert names([tmp_path / "picture", tmp_path / "b.txt"], root=tmp_path) == ["picture", "b.txt"]


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    listing = list_pictures([tmp_path], options=PLAIN)
    assert (list(listing), listing.count()) == ([], 0)


def test_a_glob_gives_what_the_shell_would(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", "x/y/c.png", "z/d.jpg")
    assert names([str(tmp_path / "**/*.jpg")], root=tmp_path) == [
        "a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg",
    ]  # fmt: skip
    assert names([str(tmp_path / "x/*.jpg")], root=tmp_path) == ["x/b.jpg"]
    assert names([str(tmp_path / "[xz]")], root=tmp_path) == [
        "x/b.jpg", "x/y/c.jpg", "x/y/c.png", "z/d.jpg",
    ]  # fmt: skip


def test_a_relative_glob_starts_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "photos/a.jpg", "photos/b/c.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(["photos/**/*.jpg"], root=tmp_path) == ["photos/a.jpg", "photos/b/c.jpg"]


def test_a_file_with_the_characters_of_a_glob_is_itself(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert names([str(tmp_path / "a[1].jpg")], root=tmp_path) == ["a[1].jpg"]


def test_symbolic_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "store/a.jpg", "photos/b.jpg")
    (tmp_path / "photos/link").symlink_to(tmp_path / "store")
    (tmp_path / "photos/c.jpg").symlink_to(tmp_path / "store/a.jpg")
    assert names([tmp_path / "photos"], root=tmp_path) == [
        "photos/b.jpg", "photos/c.jpg", "photos/link/a.jpg",
    ]  # fmt: skip


def test_a_link_back_up_is_one_refusal_and_the_rest_goes_on(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "a/self.jpg").symlink_to("self.jpg")
    listing = listed([tmp_path])
    assert [e.path.name for e in listing] == ["1.jpg", "loop", "self.jpg", "2.jpg"]
    assert [e.reason for e in listing if isinstance(e, Refused)] == [
        "a symbolic link back to a folder above it",
        "a symbolic link that leads back to itself",
    ]


def test_links_that_close_a_circle_elsewhere_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to-a").symlink_to(tmp_path / "a")
    assert list(refusals([tmp_path / "a"])) == [str(tmp_path / "a/to-b/to-a")]


def test_one_real_folder_is_walked_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")
    (tmp_path / "b").symlink_to("a")
    everything = [tmp_path, tmp_path / "a", tmp_path / "b", tmp_path / "b/1.jpg"]
    assert names(everything, root=tmp_path) == ["a/1.jpg"]


def test_a_folder_too_deep_for_recursion_is_walked(tmp_path: Path) -> None:
    folders = [f"{tmp_path}{'/d' * depth}" for depth in range(1, 1201)]
    for folder in folders:
        os.mkdir(folder)  # noqa: PTH102 -- pathlib recurses
    picture = f"{folders[-1]}/a.jpg"
    os.close(os.open(picture, os.O_CREAT))
    assert [str(entry.path) for entry in listed([tmp_path])] == [picture]
    os.unlink(picture)  # noqa: PTH108 -- and so does pytest when it cleans up
    for folder in reversed(folders):
        os.rmdir(folder)  # noqa: PTH106


def test_a_missing_file_among_others_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    missing = [str(tmp_path / name) for name in ["gone.jpg", "gone.jpg", "*.png"]]
    assert refusals([*missing, tmp_path / "a.jpg"]) == {
        str(tmp_path / "gone.jpg"): "no such file or folder",
        str(tmp_path / "*.png"): "no file matches this pattern",
    }


@pytest.mark.parametrize("name", ["gone", "go*ne", "", "a**b/x"])
def test_nothing_but_missing_files_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"no such file|no file matches|\*\*"):
        list_pictures([str(tmp_path / name) if name else ""], options=PLAIN)


def test_nothing_at_all_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="name a picture"):
        list_pictures([], options=PLAIN)


def test_an_unknown_origin_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="captured, generated, restored"):
        list_pictures([tmp_path], options=SourceOptions(origin="painted"))


def test_what_may_not_be_read_is_refused_and_the_rest_goes_on() -> None:
    with as_nobody() as root:
        make(root, "a/1.jpg", "b/2.jpg", "c.jpg")
        (root / "a").chmod(0)
        (root / "c.jpg").chmod(0)
        a, b, c = listed([root])
        (root / "a").chmod(0o700)
        assert a == Refused(path=root / "a", reason="no permission to read it")
        assert isinstance(b, Picture)
        assert isinstance(c, Picture)
        assert read_bytes(b) == b"b/2.jpg"
        with pytest.raises(RefusedImageError, match=r"^no permission to read it$"):
            read_bytes(c)


def test_names_with_line_breaks_and_stray_bytes_are_listed_and_read(tmp_path: Path) -> None:
    made = [b"two\nlines.jpg", b"latin\xe9.jpg", b"\x1b[31m.jpg"]
    for name in made:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    listing = pictures([tmp_path])
    assert [read_bytes(picture) for picture in listing] == sorted(made)
    assert [printable(p.path.name) for p in listing] == [
        r"\x1b[31m.jpg", r"latin\xe9.jpg", r"two\nlines.jpg",
    ]  # fmt: skip


def test_a_picture_travels_to_another_process_and_is_read_there(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    (picture,) = pictures([tmp_path], options=SourceOptions(source="phone"))
    assert read_bytes(pickle.loads(pickle.dumps(picture))) == b"a.jpg"  # noqa: S301


def test_a_relative_path_still_reads_after_the_working_folder_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (picture,) = pictures(["../photos"])
    monkeypatch.chdir("/")
    assert (picture.path, read_bytes(picture)) == (tmp_path / "photos/a.jpg", b"photos/a.jpg")


def test_reading_says_why_it_refuses(tmp_path: Path) -> None:
    make(tmp_path, "folder/a.jpg")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(IMAGE_BYTES_MAX + 1)
    reasons = {}
    for name in ["gone.jpg", "folder", "empty.jpg", "pipe.jpg", "huge.jpg"]:
        with pytest.raises(RefusedImageError) as refusal:
            read_bytes(Picture(path=tmp_path / name))
        reasons[name] = str(refusal.value)
    assert reasons == {
        "gone.jpg": "no such file or folder",
        "folder": "a folder, not a picture",
        "empty.jpg": "it is empty",
        "pipe.jpg": "a pipe, socket or device, not a picture",
        "huge.jpg": "its size in bytes is 67,108,865; at most 67,108,864 is allowed",
    }


def test_the_count_is_the_number_of_pictures(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/c.png", "b/d.txt")
    assert list_pictures([tmp_path, tmp_path / "a.jpg"], options=PLAIN).count() == 2
    make(tmp_path, "e.tar")
    assert list_pictures([tmp_path, tmp_path / "e.tar"], options=PLAIN).count() is None


def test_the_folder_right_above_names_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "root.jpg", "Ann Lee/1.jpg", "x/Bo/2.jpg")
    options = SourceOptions(person_from_folder=True, source="album", origin="restored")
    listing = pictures([tmp_path], options=options)
    assert [picture.facts for picture in listing] == [
        Facts(person=person, source="album", origin="restored")
        for person in ["Ann Lee", tmp_path.name, "Bo"]
    ]
    monkeypatch.chdir(tmp_path / "x/Bo")
    (picture,) = pictures(["2.jpg"], options=options)
    assert picture.facts.person == "Bo"


def test_a_folder_whose_name_is_no_utf_8_names_a_person_that_can_be_stored(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"Jos\xe9/1.jpg"))
    (picture,) = pictures([tmp_path], options=SourceOptions(person_from_folder=True))
    assert picture.facts.person == "Jos\\xe9"


def test_frame_folders_give_track_and_frame(tmp_path: Path) -> None:
    make(tmp_path, "cam1/day2/000123.jpg", "cam1/take3_0007.png", "9.jpg", "cover.jpg")
    listing = pictures([tmp_path], options=SourceOptions(frames=True))
    assert [(p.facts.track, p.facts.frame) for p in listing] == [
        (tmp_path.name, 9), ("cam1/day2", 123), ("cam1", 7), (tmp_path.name, None),
    ]  # fmt: skip


def test_tracks_are_named_from_the_folder_that_was_named(tmp_path: Path) -> None:
    make(tmp_path, "cam1/day2/5.jpg")
    for root, track in [("cam1", "day2"), ("cam1/day2", "day2")]:
        (picture,) = pictures([tmp_path / root], options=SourceOptions(frames=True))
        assert (picture.facts.track, picture.facts.frame) == (track, 5)


TREE = ["a.jpg", "b/1.jpg", "b/2.png", "b/c/3.jpg", "d/4.jpg", "notes.txt"]
ARGUMENTS = st.sampled_from(
    [*TREE, ".", "b", "b/c", "d", "link", "link/3.jpg", "gone", "b/*", "**/*.jpg"]
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("tree")
    make(root, *TREE)
    (root / "link").symlink_to("b/c")
    return root


def test_a_text_file_of_its_name_beside_a_picture_holds_its_captions(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}.jpg" for name in ("a", "b", "c", "d", "e", "f", "g.h")))
    says = {
        "a.txt": "\ufeffa man with a hat\r\n\n  smiling \na man with a hat\n".encode(),
        "b.txt": b"0 0.716797 0.395833 0.216406 0.147222\n",  # a detector's labels
        "c.txt": b"",
        "d.txt": b"\xff\xfe",
        "e.txt": b"x" * (TEXT_BYTES_MAX + 1),
        "f.txt": b" " * (SIDECAR_BYTES_MAX + 1),
        "g.h.txt": "lächelt".encode(),
        "other.txt": b"of no picture",
    }
    for name, content in says.items():
        (tmp_path / name).write_bytes(content)
    listing = listed([tmp_path])
    assert [p.path.name for p in listing] == [
        *("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.h.jpg")
    ]
    told = {p.path.name[0]: p.facts.captions for p in listing if isinstance(p, Picture)}
    assert told == {"a": ("a man with a hat", "smiling"), "b": None, "c": None, "g": ("lächelt",)}
    reasons = [entry.reason for entry in listing if isinstance(entry, Refused)]
    assert [reason.removeprefix("the .txt beside it") for reason in reasons] == [
        " is not UTF-8",
        " holds a NUL, or text of more than 8,192 bytes",
        ": its size in bytes is 1,048,577; at most 1,048,576 is allowed",
    ]


def test_what_is_no_text_file_beside_a_picture_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "a.txt").mkdir()
    os.mkfifo(tmp_path / "b.txt")  # reading it would wait for its writer for ever
    (tmp_path / "c.txt").symlink_to(tmp_path / "nowhere")
    assert [p.facts.captions for p in pictures([tmp_path])] == [None, None, None]


def test_a_named_text_file_is_no_caption_of_itself(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    assert pictures([tmp_path / "a.txt"])[0].facts.captions is None


@settings(deadline=None)
@given(arguments=st.lists(ARGUMENTS, min_size=1), again=st.lists(st.integers(0, 99)))
def test_listing_is_deterministic_and_deaf_to_repeated_arguments(
    tree: Path, arguments: list[str], again: list[int]
) -> None:
    paths = [str(tree / argument) for argument in arguments]
    try:
        once = listed(list(dict.fromkeys(paths)))
    except UsageError:
        assert set(arguments) == {"gone"}
        return
    repeated = [*paths, *(paths[i % len(paths)] for i in again)]
    assert listed(repeated) == once
    files = [entry.path.resolve() for entry in once if isinstance(entry, Picture)]
    assert len(files) == len(set(files))
    assert sum(1 for entry in once if isinstance(entry, Refused)) == ("gone" in arguments)


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_printable_and_storable_really_is(name: str) -> None:
    assert printable(name).isprintable()
    assert "\0" not in storable(name)
    storable(name).encode("utf-8")
