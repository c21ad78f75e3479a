"""How many frames of a video are kept where most are near-copies, and is anything lost?

    python -m benchmarks.tracks made
    python -m benchmarks.tracks lfw --pictures LFW --work FOLDER

Nine of ten frames are planted near-copies of another. `made` plants them among the generator's
faces: a mode of a person (a pose, a light, an expression) moves the vector, and turns the head
where it is a pose; frames of one mode differ by little noise. `lfw` takes pictures of one person
for the modes of a track, and makes frames of each by what videos do: encoding, a shift of one to
three pixels, brightness, a slight blur; they go through the real pipeline. One JSON line a figure.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.filtered.data.generator import LATENT, NOISE_SPREAD, frame
from benchmarks.people import Crowd
from facedex.handle import open_facedex
from facedex.tracks import near_copies
from retrieval.curation.redundancy import POSE, VECTOR, Frames, bounds_of, covered, steps_of
from retrieval.filters.parse import parse
from retrieval.store.described import read_described
from retrieval.values import Floats, UnitRows, unit_rows

Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PERSONS: Final = 160
MODES: Final = 5
FRAMES: Final = 10  # of each mode
COLLECTION: Final = "tracks"
SEED: Final = 6_406
NAMED: Final = "person IS NOT NULL"  # LFW's faces in the background are none of a track's
# Modes of a track and how far each moves the vector: two pictures of one person differ by 0.8.
KINDS: Final = (
    *(("plain", 0.3), ("pose", 0.8), ("pose", 0.8), ("light", 0.6), ("light", 0.6)),
    *(("expression", 0.4), ("expression", 0.4)),
)
FRAME_NOISE: Final = 0.1
POSE_NOISE: Final = 1.5  # degrees


def planted_pictures(pictures: Path, folder: Path, *, persons: int, seed: int) -> Path:
    """Write the frames and a file that says what they are; give that file's path."""
    random = np.random.default_rng(seed)
    named = sorted(one for one in pictures.iterdir() if one.is_dir())
    enough = [one for one in named if len(list(one.glob("*.jpg"))) >= MODES]
    chosen = sorted(random.permutation(len(enough))[:persons].tolist())
    stated = folder / "frames.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with stated.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "person", "track", "frame", "mode"])
        for number in chosen:
            shown = sorted(enough[number].glob("*.jpg"))
            for mode, place in enumerate(sorted(random.permutation(len(shown))[:MODES].tolist())):
                picture = Image.open(shown[place]).convert("RGB")
                for frame in range(FRAMES):
                    path = folder / f"{number:04d}_{mode}_{frame}.jpg"
                    path.write_bytes(jittered(picture, random))
                    person = enough[number].name.replace("_", " ")
                    rows.writerow(
                        [path.name, person, f"track {number}", mode * FRAMES + frame, mode]
                    )
    return stated


def jittered(picture: Image.Image, random: np.random.Generator) -> bytes:
    """The picture as another frame would show it, as JPEG."""
    across, down = random.integers(-3, 4, 2).tolist()
    moved = picture.transform(
        picture.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down), Image.Resampling.NEAREST
    )
    lit = ImageEnhance.Brightness(moved).enhance(float(random.uniform(0.97, 1.03)))
    soft = lit.filter(ImageFilter.GaussianBlur(float(random.uniform(0.0, 0.7))))
    written = BytesIO()
    soft.save(written, "JPEG", quality=int(random.integers(60, 96)))
    return written.getvalue()


class Planted(NamedTuple):
    """Frames with what they were made of; those of one person are one track, together."""

    vectors: UnitRows  # (n, 512)
    pose: Floats  # (n, 3) yaw, pitch, roll in degrees
    quality: Doubles  # (n,)
    tracks: Numbers  # (n,)
    modes: Numbers  # (n,) place among KINDS


def planted_faces(persons: int, *, seed: int) -> Planted:
    """Frames of the generator's people: each mode in two runs, in any order of runs."""
    crowd = Crowd.drawn(persons, seed=seed)
    random = crowd.random
    runs = np.repeat(np.arange(len(KINDS)), 2)
    runs = np.concatenate([random.permutation(runs) for _ in range(persons)])
    modes = np.repeat(runs, FRAMES // 2)
    tracks = np.repeat(np.arange(persons), len(KINDS) * FRAMES)
    kinds = [KINDS[mode][0] for mode in range(len(KINDS))]
    moved = np.array([KINDS[mode][1] for mode in range(len(KINDS))])[:, None]
    away = moved * random.standard_normal((persons, len(KINDS), LATENT)) / np.sqrt(LATENT)
    turned = random.uniform(20, 45, (persons, len(KINDS), 3)) * random.choice([-1, 1], 3)
    turned *= np.array([1.0, 0.4, 0.0]) * (np.array(kinds) == "pose")[:, None]
    noise = FRAME_NOISE * random.lognormal(0, NOISE_SPREAD, len(modes))
    latent = crowd.centres[tracks] + away[tracks, modes]
    latent += noise[:, None] * random.standard_normal((len(modes), LATENT)) / np.sqrt(LATENT)
    return Planted(
        vectors=unit_rows(unit_rows(latent @ frame().T).astype("<f2")),
        pose=(turned[tracks, modes] + random.normal(0, POSE_NOISE, (len(modes), 3))).astype("f4"),
        quality=1 / (1 + (noise / FRAME_NOISE) ** 2),
        tracks=tracks,
        modes=modes,
    )


def figures(tracks: Numbers, modes: Numbers, kept: Mask) -> dict[str, Any]:
    """Shares of frames, tracks and modes that are kept."""
    planted = np.unique(np.stack([tracks, modes]), axis=1)
    left = np.unique(np.stack([tracks[kept], modes[kept]]), axis=1)
    return {
        "frames": len(tracks),
        "kept": round(float(kept.mean()), 4),
        "tracks": len(np.unique(tracks)),
        "tracks_kept": len(np.unique(tracks[kept])),
        "modes": planted.shape[1],
        "modes_kept": round(left.shape[1] / planted.shape[1], 4),
    }


def made(persons: int) -> Iterator[dict[str, Any]]:
    """The decision alone, on planted faces."""
    planted = planted_faces(persons, seed=SEED)
    began = time.process_time()
    frames = Frames(ways={VECTOR: planted.vectors, POSE: planted.pose})
    bounds = bounds_of(frames, steps_of(planted.tracks, seed=0))
    kept = np.zeros(len(planted.tracks), np.bool_)
    for rows in np.split(np.arange(len(kept)), persons):
        order = np.lexsort((rows, -planted.quality[rows]))
        kept[rows] = covered(frames.some(rows), order, bounds).kept
    took = time.process_time() - began
    told = figures(planted.tracks, planted.modes, kept)
    for kind in ("plain", "pose", "light", "expression"):
        some = np.array([name == kind for name, _ in KINDS])[planted.modes]
        told[f"{kind}_kept"] = figures(planted.tracks[some], planted.modes[some], kept[some])[
            "modes_kept"
        ]
    bound = {way.name: round(value, 3) for way, value in bounds.items()}
    yield told | {"bounds": bound, "cpu_us_a_frame": round(1e6 * took / len(kept), 1)}


def lfw(pictures: Path, work: Path, persons: int) -> Iterator[dict[str, Any]]:
    """Planted pictures through the real pipeline, and `dedup --level track` on what is stored."""
    frames = work / "frames"
    stated = planted_pictures(pictures, frames, persons=persons, seed=SEED)
    with open_facedex(home=work / "home", collection=COLLECTION) as facedex:
        facedex.ingest([frames], metadata=str(stated))
        table = read_described(
            facedex.store,
            collection=facedex.collection(),
            filter_=parse(NAMED, facedex.fields(facedex.collection())),
            columns=("track", "frame"),
        )
        began = time.process_time()
        found = near_copies(facedex, where=NAMED)
        took = time.process_time() - began
    faces = found.pictured.faces.ids
    dropped = [int(faces[one.face]) for one in found.duplicates if one.face is not None]
    kept = ~np.isin(table["face"].to_numpy(), dropped)
    tracks = np.unique(table["track"].to_pylist(), return_inverse=True)[1]
    told = figures(tracks, table["frame"].to_numpy() // FRAMES, kept)
    yield told | dict(found.figures) | {"cpu_s": round(took, 2)}


def main() -> None:
    """Print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    generated = commands.add_parser("made")
    generated.add_argument("--persons", type=int, default=1_000)
    real = commands.add_parser("lfw")
    real.add_argument("--pictures", type=Path, required=True, help="LFW's folder of folders.")
    real.add_argument("--work", type=Path, required=True, help="For frames and a home.")
    real.add_argument("--persons", type=int, default=PERSONS)
    chosen = parser.parse_args()
    lines = (
        made(chosen.persons)
        if chosen.command == "made"
        else lfw(chosen.pictures, chosen.work, chosen.persons)
    )
    for line in lines:
        print(json.dumps({"what": f"tracks {chosen.command}", **line}), flush=True)


if __name__ == "__main__":
    main()
