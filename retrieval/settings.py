"""Every setting, where its value came from, and the one place that reads the environment.

Order: option of the command, environment (`FACEDEX_...`), `facedex.toml` (in the working folder,
else in FACEDEX_HOME), default. An unknown name in the file is an error: a typing mistake must not
silently leave a default in place.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from retrieval.errors import SettingError

Use = Literal["research", "commercial"]
TraitWordsPolicy = Literal["refuse", "flag", "allow"]
Number = TypeVar("Number", int, float)
FILE_NAME: Final = "facedex.toml"
DEFAULT_COLLECTION: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set; each field is `FACEDEX_<NAME>` in the environment."""

    home: Path = Path(".facedex")  # database, snapshots, copies
    database_url: str | None = None  # None: the embedded PostgreSQL below `home`
    collection: str = DEFAULT_COLLECTION
    models: str = ""  # arcface, sface or a folder; "": what `use` allows
    use: Use = "research"  # commercial refuses research-only weights
    workers: int = 0  # processes that embed; 0: one for each core
    after_timeout_s: float = 10.0  # how long a search waits for the write of --after
    trait_words_policy: TraitWordsPolicy = "refuse"  # what a sentence may ask (captions/policy.py)
    trait_words: Path | None = None  # a file of words beside the built-in ones, or instead of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Settings with the origin of each value."""

    settings: Settings
    origins: Mapping[str, str]  # name -> "default", a file, a variable or "option"


def configuration(options: Mapping[str, Any], *, folder: Path | None = None) -> Configuration:
    """Read all sources of settings for a command that was started in `folder`.

    Raises:
        SettingError: a value has the wrong type, or the file names an unknown setting.
    """
    folder = folder or Path.cwd()
    values: dict[str, Any] = {}
    origins = {field.name: "default" for field in fields(Settings)}
    for origin, found in (
        *_file_sources(folder, home=_early_home(options)),
        *_environment_sources(),
        ("option", {name: value for name, value in options.items() if value is not None}),
    ):
        for name, raw in found.items():
            values[name] = _converted(name, raw, origin=origin)
            origins[name] = origin
    settings = Settings(**values)
    return Configuration(settings=_absolute(settings, folder), origins=origins)


def _early_home(options: Mapping[str, Any]) -> Path:
    return Path(options.get("home") or os.environ.get("FACEDEX_HOME") or Settings().home)


def _file_sources(folder: Path, *, home: Path) -> list[tuple[str, dict[str, Any]]]:
    for path in (folder / FILE_NAME, folder / home / FILE_NAME):
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
            raise SettingError(f"{path} cannot be read: {cause}") from cause
        return [(str(path), found)]
    return []


def _environment_sources() -> list[tuple[str, dict[str, Any]]]:
    names = {f"FACEDEX_{field.name.upper()}": field.name for field in fields(Settings)}
    return [
        (variable, {name: os.environ[variable]})
        for variable, name in names.items()
        if os.environ.get(variable)
    ]


def _converted(name: str, raw: Any, *, origin: str) -> Any:
    known = [field.name for field in fields(Settings)]
    if name not in known:
        raise SettingError(f"{origin}: '{name}' is no setting; known are {', '.join(known)}")
    try:
        match name:
            case "home" | "trait_words":
                return Path(raw)
            case "workers":
                return _at_least_zero(int(raw))
            case "after_timeout_s":
                return _at_least_zero(float(raw))
            case "use":
                return _one_of(get_args(Use), raw)
            case "trait_words_policy":
                return _one_of(get_args(TraitWordsPolicy), raw)
            case _:
                return str(raw)
    except (TypeError, ValueError) as cause:
        raise SettingError(f"{origin}: {name} cannot be '{raw}': {cause}") from cause


def _at_least_zero(value: Number) -> Number:
    if not value >= 0:
        raise ValueError("it must be 0 or more")
    return value


def _one_of(values: tuple[str, ...], raw: Any) -> str:
    if raw not in values:
        raise ValueError(f"it must be one of {', '.join(values)}")
    return str(raw)


def _absolute(settings: Settings, folder: Path) -> Settings:
    values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    words = settings.trait_words
    return Settings(
        **values
        | {
            "home": (folder / settings.home).resolve(),
            "trait_words": None if words is None else (folder / words).resolve(),
        }
    )


def without_password(url: str | None) -> str | None:
    """The address with its password starred out, in either of libpq's spellings."""
    if url is None:
        return None
    return re.sub(
        r"(?<=://)([^:/@]*):[^@]*@", r"\1:***@", re.sub(r"(password=)[^\s&]+", r"\1***", url)
    )
