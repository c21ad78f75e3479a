"""Captions: is what they say what was true, and are they found?

    python -m benchmarks.captions roundtrip --file list_attr_celeba01.csv.zip
    python -m benchmarks.captions read --data ../shared/data
    python -m benchmarks.captions lfw --data ../shared/data --work DIR --sheet DIR

`roundtrip` makes a full caption of each row of an attribute file and reads it again: what is not
named counts as false. `read` reads sentences that others wrote: LFW's captions, against the labels
that they were made of, and free sentences. One JSON line a figure.
"""

import argparse
import csv
import gzip
import importlib
import io
import json
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from statistics import fmean, median
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.csv
from PIL import Image, ImageDraw
from scipy.io import loadmat
from tqdm import tqdm

from retrieval.captions.grammar import attributes_of, captions
from retrieval.captions.vocabulary import attributes_of_columns, attributes_of_row
from retrieval.evaluation.captions import auc, judge_sentences, rank_captions
from retrieval.models.ports import FaceTextReading
from retrieval.values import UnitRows

Flags = npt.NDArray[np.bool_]

COLUMNS: Final = ("full", "half", "few")  # all, 45 % and 20 % of the attributes
ASKED: Final = ("full", "half")
SHEET_SENTENCES: Final = (
    "a smiling woman with blond hair",
    "an old man with gray hair and glasses",
    "a man with a beard wearing a hat",
    "a child",
    "a bald man in a suit and tie",
    "a young woman with long dark hair and earrings",
)
SHEET_FACES: Final = 8
SHEET_SIDE_PX: Final = 120
SHEET_LINE_PX: Final = 20


class Model(Protocol):
    """What a trainer makes."""

    def of_faces(self, images: Sequence[str]) -> FaceTextReading:
        """Vectors, tags and chances of LFW pictures named PERSON/PERSON_0001.jpg."""
        ...

    def of_texts(self, texts: Sequence[str]) -> UnitRows:
        """Vectors of sentences in the same space."""
        ...


Trainer = Callable[[Path, Sequence[str]], Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One division of LFW's people."""

    number: int
    test: tuple[str, ...]  # all pictures of the people who are asked for
    train: tuple[str, ...]  # all pictures of the others
    galleries: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Lfw:
    """LFW with its captions, labels and splits."""

    data: Path

    @cached_property
    def captions(self) -> dict[str, dict[str, str]]:
        """The frozen captions of each picture."""
        return {row["image"]: row for row in lfw_captions(self.data)}

    @cached_property
    def splits(self) -> list[Split]:
        """The frozen splits; pictures are those that have captions."""
        read = json.loads((self.data / "captions" / "splits.json").read_text("utf-8"))
        found = []
        for number, one in enumerate(read):
            people = set(one["test_people"])
            asked = {image: person_of(image) in people for image in self.captions}
            found.append(
                Split(
                    number=number,
                    test=tuple(image for image, inside in asked.items() if inside),
                    train=tuple(image for image, inside in asked.items() if not inside),
                    galleries=tuple(map(tuple, one["galleries"])),
                )
            )
        return found

    @cached_property
    def labels(self) -> dict[str, dict[str, int]]:
        """The labels of each picture by column: the 73, and of the 40 what they lack."""
        found: dict[str, dict[str, int]] = {}
        for count in (40, 73):
            images, names, cells = lfw_columns(self.data, count)
            for image, row in zip(images, cells.tolist(), strict=True):
                found.setdefault(image, {}).update(zip(names, row, strict=True))
        return found

    @cached_property
    def sentences(self) -> list[dict[str, Any]]:
        """The free sentences and what makes a picture right for each."""
        found: list[dict[str, Any]] = json.loads(
            (self.data / "captions" / "sentences.json").read_text("utf-8")
        )
        return found

    def is_right(self, image: str, attributes: Mapping[str, int]) -> bool:
        """Whether a picture has all these attributes."""
        labels = self.labels[image]
        return all((labels[name] > 0) == (truth > 0) for name, truth in attributes.items())


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trip = commands.add_parser("roundtrip")
    trip.add_argument("--file", type=Path, required=True, help="CSV, or a zip that holds one.")
    trip.add_argument("--denied", type=int, default=0, help="False attributes said to be so.")
    reading = commands.add_parser("read")
    reading.add_argument("--data", type=Path, required=True)
    lfw = commands.add_parser("lfw")
    lfw.add_argument("--data", type=Path, required=True)
    lfw.add_argument("--trainer", metavar="MODULE:FUNCTION", help="Another than Facedex's own.")
    lfw.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "facedex-lfw",
                     help="Keeps what pictures show of themselves (800 MB).")  # fmt: skip
    lfw.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    lfw.add_argument("--sheet", type=Path, metavar="DIR", help="Of the first split.")
    chosen = parser.parse_args()
    lines = {
        "roundtrip": lambda: round_trip(chosen.file, denied=chosen.denied),
        "read": lambda: read_others(chosen.data),
        "lfw": lambda: frozen_test(
            Lfw(chosen.data),
            trainer_named(chosen.trainer) if chosen.trainer else own_trainer(chosen.work),
            chosen.splits,
            sheet=chosen.sheet,
        ),
    }
    for line in lines[chosen.command]():
        print(json.dumps({"what": chosen.command, **line}), flush=True)


def round_trip(file: Path, *, denied: int) -> Iterator[dict[str, Any]]:
    """Attributes -> caption -> attributes, for every row."""
    begun = time.process_time()
    names, cells = _attribute_file(file)
    tags, truth = attributes_of_columns(names, cells)
    found = np.zeros_like(truth)
    words = 0
    distinct = set()
    for row, flags in enumerate(tqdm(truth.tolist())):
        attributes = dict(zip(tags, flags, strict=True))
        (caption,) = captions(attributes, seed=row, denied=denied)
        read = attributes_of(caption)
        found[row] = [read.get(tag, False) for tag in tags]
        words += caption.count(" ") + 1
        distinct.add(caption)
    same = found == truth
    wrong = {tag: int(n) for tag, n in zip(tags, (~same).sum(axis=0), strict=True) if n}
    yield {
        "rows": len(truth),
        "attributes": len(tags),
        "left_out": [name for name in names if not attributes_of_row({name: 1})],
        "attributes_right": float(same.mean()),
        "rows_right": float(same.all(axis=1).mean()),
        "wrong": wrong,
        "captions_distinct": len(distinct),
        "words": words / len(truth),
        "cpu_s": round(time.process_time() - begun, 1),
    }


def read_others(data: Path) -> Iterator[dict[str, Any]]:
    """What is understood of LFW's captions and of free sentences."""
    for column in COLUMNS:
        yield {"captions": column, **_frozen(data, column)}
    for sentence in json.loads((data / "captions" / "sentences.json").read_text("utf-8")):
        wanted = attributes_of_row(sentence["attributes"])
        read = attributes_of(sentence["sentence"])
        missed = sorted(tag for tag, truth in wanted.items() if read.get(tag) != truth)
        more = sorted(set(read) - set(wanted))
        yield {"sentence": sentence["sentence"], "missed": missed, "also_read": more}


def _frozen(data: Path, column: str) -> dict[str, Any]:
    """How often what a caption says stands in the labels, and how many labels it says."""
    labels = lfw_attributes(data)
    said = right = 0
    by_tag: Counter[str] = Counter()
    true: Counter[str] = Counter()
    begun = time.process_time()
    for row in lfw_captions(data):
        truth = labels[row["image"]]
        read = attributes_of(row[column])
        said += len(read)
        right += sum(truth.get(tag) == claimed for tag, claimed in read.items())
        by_tag.update(tag for tag, claimed in read.items() if claimed and truth.get(tag))
        true.update(tag for tag, claimed in truth.items() if claimed)
    spoken = [tag for tag in true if by_tag[tag]]
    return {
        "said": said,
        "right": right / said,
        # Attributes that these captions ever speak of.
        "recovered": sum(by_tag[tag] for tag in spoken) / sum(true[tag] for tag in spoken),
        "by_tag": {tag: round(by_tag[tag] / true[tag], 3) for tag in sorted(spoken)},
        "cpu_s": round(time.process_time() - begun, 1),
    }


def lfw_captions(data: Path) -> list[dict[str, str]]:
    """LFW's frozen captions: image, full, half, few."""
    with gzip.open(data / "captions" / "captions.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lfw_columns(data: Path, count: int) -> tuple[list[str], list[str], npt.NDArray[np.uint8]]:
    """Images, columns and labels of LFWA+'s file of 40 or 73."""
    read = loadmat(data / "lfw" / f"lfw_att_{count}_7.1.mat")
    images = [str(one[0]).replace("\\", "/") for one in read["name"][0]]
    return images, [str(one[0]) for one in read["AttrName"][0]], read["label"]


def lfw_attributes(data: Path) -> dict[str, dict[str, bool]]:
    """Truth by tag of each image: the 73, and of the 40 what they lack."""
    found: dict[str, dict[str, bool]] = {}
    for count in (40, 73):
        images, names, labels = lfw_columns(data, count)
        tags, truth = attributes_of_columns(names, labels)
        for image, flags in zip(images, truth.tolist(), strict=True):
            found[image] = found.get(image, {}) | dict(zip(tags, flags, strict=True))
    return found


def own_trainer(work: Path) -> Trainer:
    """The trainer of `facedex caption train`."""
    from benchmarks.lfw_looks import Trainer as Own

    return Own(work, lfw_attributes)


def trainer_named(name: str) -> Trainer:
    """The function that MODULE:FUNCTION names."""
    module, _, function = name.partition(":")
    found: Trainer = getattr(importlib.import_module(module), function)
    return found


def frozen_test(
    lfw: Lfw, train: Trainer, splits: Sequence[int], *, sheet: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Train and ask on each split, and the means of it all."""
    if sheet is not None:
        require_outside(sheet)
    lines: list[dict[str, Any]] = []
    for number in splits:
        split = lfw.splits[number]
        begun = time.process_time()
        model = train(lfw.data, split.train)
        seconds = round(time.process_time() - begun, 1)
        for line in asked(lfw, model, split):
            lines.append({"split": number, **line})
            yield lines[-1]
        yield {"split": number, "people_trained": len({*map(person_of, split.train)}),
               "trained_on": len(split.train), "train_cpu_s": seconds}  # fmt: skip
        if sheet is not None and number == splits[0]:
            yield {"split": number, "sheet": str(contact_sheet(lfw, model, split, folder=sheet))}
    yield {"mean": means(lines)}


def asked(lfw: Lfw, model: Model, split: Split) -> Iterator[dict[str, Any]]:
    """All figures of one split."""
    reading = model.of_faces(split.test)
    row = {image: place for place, image in enumerate(split.test)}
    for number, gallery in enumerate(split.galleries):
        faces = UnitRows(reading.vectors[[row[image] for image in gallery]])
        persons = np.unique([*map(person_of, gallery)], return_inverse=True)[1]
        for column in ASKED:
            told = [lfw.captions[image][column] for image in gallery]
            report = rank_captions(
                faces,
                model.of_texts(told),
                sentences=told,
                owners=np.arange(len(told)),
                persons=persons,
                replicates=0,
            )
            line: dict[str, Any] = {"gallery": number, "captions": column, "faces": len(gallery)}
            for before, way in (("", report.text_to_face), ("back_", report.face_to_text)):
                for rank, share in way.recall_at.items():
                    line[f"{before}recall_at_{rank}"] = round(share.value, 4)
                line[f"{before}median_rank"] = way.median_rank.value
                line[f"{before}map"] = round(way.mean_average_precision.value, 4)
            yield line
    yield free_sentences(lfw, model, split, reading.vectors)
    yield attribute_heads(lfw, split, reading)


def free_sentences(lfw: Lfw, model: Model, split: Split, faces: UnitRows) -> dict[str, Any]:
    """Precision and mAP of the free sentences over all test pictures."""
    texts = [one["sentence"] for one in lfw.sentences]
    relevant = [
        [lfw.is_right(image, one["attributes"]) for image in split.test] for one in lfw.sentences
    ]
    persons = np.unique([*map(person_of, split.test)], return_inverse=True)[1]
    report = judge_sentences(
        model.of_texts(texts) @ faces.T, np.array(relevant), sentences=texts, persons=persons
    )
    return {
        "sentences": len(report.sentences),
        "faces": report.faces,
        "precision_at_10": round(report.precision.value, 4),
        "precision_low": report.precision.low,
        "precision_high": report.precision.high,
        "sentences_map": round(report.mean_average_precision.value, 4),
        "map_low": report.mean_average_precision.low,
        "map_high": report.mean_average_precision.high,
        "any_order": round(report.chance, 4),
        "by_sentence": {
            one.sentence: [round(one.precision.value, 3), round(one.average_precision.value, 3)]
            for one in report.sentences
        },
    }


def attribute_heads(lfw: Lfw, split: Split, reading: FaceTextReading) -> dict[str, Any]:
    """AUC of each attribute of the 73 that is not sensitive and that the model tells."""
    images, names, cells = lfw_columns(lfw.data, 73)
    tags, truth = attributes_of_columns(names, cells)
    rows = {image: place for place, image in enumerate(images)}
    test = [rows[image] for image in split.test]
    found: dict[str, float] = {}
    for tag in tags:
        if tag in reading.tags and tag != "female":  # the column Male, once
            scores = reading.chances[:, reading.tags.index(tag)]
            if (area := auc(scores, truth[test, tags.index(tag)])) is not None:
                found[tag] = round(area, 4)
    return {
        "heads": len(found),
        "of": len(tags) - 1,
        "auc_median": median(found.values()) if found else None,
        "auc": found,
    }


def means(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means over splits and galleries, and how many figures made each."""
    found: dict[str, Any] = {}
    for column in ASKED:
        of_it = [line for line in lines if line.get("captions") == column]
        for name in (n for n in (of_it[0] if of_it else {}) if "recall" in n or "map" in n):
            found[f"{column}_{name}"] = round(fmean(line[name] for line in of_it), 4)
        found[f"{column}_galleries"] = len(of_it)
    for name in ("precision_at_10", "sentences_map", "auc_median"):
        values = [line[name] for line in lines if line.get(name) is not None]
        found[name] = round(fmean(values), 4) if values else None
    return found


def contact_sheet(
    lfw: Lfw,
    model: Model,
    split: Split,
    *,
    folder: Path,
    sentences: Sequence[str] = SHEET_SENTENCES,
) -> Path:
    """The best test pictures for each sentence, best first, as one PNG.

    Faces of people: the folder must lie outside the repository.
    """
    require_outside(folder)
    faces = model.of_faces(split.test).vectors
    best = np.argsort(-(model.of_texts(sentences) @ faces.T), axis=1)[:, :SHEET_FACES]
    names = [[split.test[place] for place in row] for row in best]
    pictures = lfw_pictures(lfw.data, {name for row in names for name in row})
    height = SHEET_SIDE_PX + SHEET_LINE_PX
    sheet = Image.new("RGB", (SHEET_FACES * SHEET_SIDE_PX, len(sentences) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (sentence, row) in enumerate(zip(sentences, names, strict=True)):
        pen.text((4, line * height + 4), sentence, fill="black")
        for place, name in enumerate(row):
            picture = pictures[name].resize((SHEET_SIDE_PX, SHEET_SIDE_PX))
            sheet.paste(picture, (place * SHEET_SIDE_PX, line * height + SHEET_LINE_PX))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sheet_{split.number}.png"
    sheet.save(path)
    return path


def require_outside(folder: Path) -> None:
    """Raise SystemExit where the folder lies in the repository: faces must not get into it."""
    repository = Path(__file__).resolve().parents[1]
    if folder.resolve().is_relative_to(repository):
        raise SystemExit(f"{folder} lies in the repository: faces are kept out of it")


def lfw_pictures(data: Path, names: set[str]) -> dict[str, Image.Image]:
    """These pictures out of LFW's archive."""
    found: dict[str, Image.Image] = {}
    with tarfile.open(data / "lfw" / "lfw_deepfunneled.tar.gz", "r|gz") as archive:
        for member in archive:
            name = "/".join(PurePosixPath(member.name).parts[-2:])
            if name in names and (file := archive.extractfile(member)) is not None:
                found[name] = Image.open(io.BytesIO(file.read())).convert("RGB")
                if len(found) == len(names):
                    break
    return found


def person_of(image: str) -> str:
    """The folder of a picture, which is its person's name."""
    return image.partition("/")[0]


def _attribute_file(path: Path) -> tuple[list[str], npt.NDArray[np.generic]]:
    """The names and cells of the columns of numbers."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (member,) = [n for n in archive.namelist() if not n.startswith("__MACOSX")]
            content = archive.read(member)
    else:
        content = path.read_bytes()
    table = pyarrow.csv.read_csv(io.BytesIO(content))
    names = [name for name in table.column_names if table[name].type not in _TEXT]
    return names, np.stack([table[name].to_numpy() for name in names], axis=1)


_TEXT: Final = (pyarrow.string(), pyarrow.large_string())

if __name__ == "__main__":
    main()
