"""Groups of duplicates as pages for people: pictures side by side, what stays and what goes.

One file a page, with everything in it: it can be mailed, and opened anywhere. It follows the
reader's light or dark setting, fits a phone, and is walked through with j and k, or Tab.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from retrieval.curation.duplicates import Decision

GROUPS_A_PAGE: Final = 50
CARDS_BESIDE: Final = 2  # groups with more have a row of their own
CARDS_SHOWN_MAX: Final = 12  # of one group; the tables have them all
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>
:root {{ --ground: #fff; --card: #f6f7f8; --text: #1b1f23; --quiet: #57606a; --line: #d5dae0;
  --keep: #116b34; --drop: #9a3412; --focus: #0a58ca }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #14171a; --card: #1e2327;
  --text: #e8eaed; --quiet: #a3adb8; --line: #394049; --keep: #56c983; --drop: #f0a070;
  --focus: #7ab4ff }} }}
* {{ box-sizing: border-box }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 75rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem }}
h2 {{ font-size: 1rem; margin: 0 0 .6rem; scroll-margin-top: 1rem }}
h2 span, .quiet {{ color: var(--quiet); font-weight: normal }}
main {{ display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)) }}
section {{ border-top: 1px solid var(--line); padding: 1rem 0 1.2rem }}
.wide {{ grid-column: 1 / -1 }}
.cards {{ display: grid; gap: .75rem; list-style: none; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr)) }}
.card {{ background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  border-top: 4px solid var(--drop); overflow: hidden; max-width: 17rem }}
.card.keep {{ border-top-color: var(--keep) }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 2px; min-height: 10rem;
  align-items: center; justify-content: center; background: var(--ground) }}
.pictures.many img {{ width: calc(50% - 1px) }}
img {{ display: block; max-width: 100%; max-height: 17rem; object-fit: contain }}
.none {{ color: var(--quiet); padding: 1rem; text-align: center }}
.told {{ padding: .6rem .75rem .75rem; overflow-wrap: anywhere }}
.told p {{ margin: .15rem 0 0 }}
.told .where {{ color: var(--quiet); font-size: .85em }}
.badge {{ font-weight: 600; color: var(--drop) }}
.keep .badge {{ color: var(--keep) }}
nav {{ display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0 }}
nav a, nav b {{ padding: .3rem .7rem; border: 1px solid var(--line); border-radius: .4rem;
  color: inherit; text-decoration: none; min-width: 2.5rem; text-align: center }}
nav b {{ background: var(--text); color: var(--ground) }}
a:focus-visible, h2:focus-visible, summary:focus-visible {{ outline: 3px solid var(--focus);
  outline-offset: 2px; border-radius: .2rem }}
.skip {{ position: absolute; left: -99rem }}
.skip:focus {{ position: static }}
@media print {{ nav, .skip {{ display: none }} section {{ break-inside: avoid }} }}
</style></head><body><a class="skip" href="#groups">Skip to the groups</a>
<header><h1>{title}</h1>{notes}</header>{pages}<main id="groups">{body}</main>{pages}
<script>
const heads = [...document.querySelectorAll("h2[tabindex]")];
addEventListener("keydown", event => {{
  if (event.ctrlKey || event.metaKey || event.altKey || !"jk".includes(event.key)) return;
  const at = heads.indexOf(document.activeElement);
  const next = heads[event.key === "j" ? Math.min(at + 1, heads.length - 1) : Math.max(at - 1, 0)];
  if (next) {{ next.focus(); next.scrollIntoView({{ block: "start" }}) }}
}});
</script></body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One member of a group."""

    decision: Decision
    title: str
    reason: str
    where: str | None  # it came from
    pictures: tuple[bytes, ...]  # JPEGs; empty: none is at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """One group."""

    title: str
    cards: tuple[Card, ...]
    left_out: int  # members that are not shown


def page_name(number: int) -> str:
    """The file of the n-th page, counted from 1."""
    return "report.html" if number == 1 else f"report-{number}.html"


def page(
    title: str, notes: Sequence[str], groups: Sequence[Cards], *, number: int, pages: int
) -> str:
    """One page; `number` counts from 1."""
    links = " ".join(_page_link(one, here=one == number) for one in range(1, pages + 1))
    navigation = f'<nav aria-label="Pages">{links}</nav>' if pages > 1 else ""
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    if groups:
        told += '<p class="quiet">Keys: j for the next group, k for the one before.</p>'
    return _PAGE.format(
        title=html.escape(title),
        notes=told,
        pages=navigation,
        body="\n".join(map(_group, groups)) or "<p>No duplicates were found.</p>",
    )


def _page_link(number: int, *, here: bool) -> str:
    if here:
        return f'<b aria-current="page">{number}</b>'
    return f'<a href="{page_name(number)}">{number}</a>'


def _group(group: Cards) -> str:
    head = html.escape(group.title)
    more = f'<p class="quiet">and {group.left_out:,} more</p>' if group.left_out else ""
    cards = "\n".join(map(_card, group.cards))
    shown = f'<ul class="cards">\n{cards}\n</ul>{more}'
    wide = ' class="wide"' if len(group.cards) > CARDS_BESIDE else ""
    return f'<section{wide}><h2 tabindex="-1">{head}</h2>\n{shown}</section>'


def _card(card: Card) -> str:
    decision = card.decision.value
    alternative = html.escape(f"{decision}: {card.title}", quote=True)
    pictures = "".join(_image(one, alternative) for one in card.pictures)
    many = " many" if len(card.pictures) > 1 else ""
    lines = f"<p>{html.escape(card.reason)}</p>"
    if card.where is not None:
        # A path may be broken after each of its parts.
        lines += f'<p class="where">{html.escape(card.where).replace("/", "/<wbr>")}</p>'
    return (
        f'<li class="card {decision}"><div class="pictures{many}">'
        f'{pictures or _NOTHING}</div><div class="told"><span class="badge">{decision}</span> '
        f"{html.escape(card.title)}{lines}</div></li>"
    )


def _image(picture: bytes, alternative: str) -> str:
    encoded = base64.b64encode(picture).decode()
    return f'<img alt="{alternative}" src="data:image/jpeg;base64,{encoded}">'


_NOTHING: Final = '<p class="none">no picture at hand</p>'
