"""Captions: is what they say what was true, and are they found?

    python -m benchmarks.captions roundtrip --file list_attr_celeba01.csv.zip
    python -m benchmarks.captions read --data ../shared/data

`roundtrip` makes a full caption of each row of an attribute file and reads it again: what is not
named counts as false. `read` reads sentences that others wrote: LFW's captions, against the labels
that they were made of, and free sentences. One JSON line a figure.
"""

import argparse
import csv
import gzip
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.csv
from scipy.io import loadmat
from tqdm import tqdm

from retrieval.captions.grammar import attributes_of, captions
from retrieval.captions.vocabulary import attributes_of_columns, attributes_of_row

Flags = npt.NDArray[np.bool_]

SHARES: Final = {"full": 1.0, "half": 0.45, "few": 0.2}  # of the attributes, by column


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trip = commands.add_parser("roundtrip")
    trip.add_argument("--file", type=Path, required=True, help="CSV, or a zip that holds one.")
    trip.add_argument("--denied", type=int, default=0, help="False attributes said to be so.")
    reading = commands.add_parser("read")
    reading.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    lines = {
        "roundtrip": lambda: round_trip(chosen.file, denied=chosen.denied),
        "read": lambda: read_others(chosen.data),
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
    for column in SHARES:
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
