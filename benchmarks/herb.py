"""HERB as events: ten products of a software company (entity = product) and questions about them.

Salesforce HERB, CC BY-NC 4.0, is read where it lies and never copied: its folder is `herb` below
`CONTEXT_PLANE_EVAL_DATA`, by default `../shared/data` beside the repository. One JSON file a product holds
Slack messages, documents, meeting transcripts and chats, pull requests and links; `questions.jsonl` holds
questions with the ids of the items that answer them. Event ids are those ids. The fields `team` and
`customers` are answers, not sources: they are never read.

HERB's times carry no offset and reach into 2027: they are taken as UTC and shifted back by two years.
A link has no time: it gets that of the first message that mentions it, else the product's first.

`python -m benchmarks.herb` writes all events as NDJSON, ready for `context-plane ingest` or the API.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from context_plane.model import Event, event_record

YEARS_BACK: Final = 2
CHAT_SUFFIX: Final = "_chat"
"""A meeting's chat has the meeting's id and this; both are one thread."""

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """`citations`: ids of the events of `product` that answer it."""

    product: str
    text: str
    citations: frozenset[str]
    type: str


def data_folder() -> Path | None:
    """HERB's folder, or None where the evaluation data is not on this machine."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONTEXT_PLANE_EVAL_DATA") or default) / "herb"
    return folder if (folder / "questions.jsonl").is_file() else None


def products(folder: Path) -> list[str]:
    """Names of the products, ascending."""
    return sorted(path.stem for path in folder.glob("*.json"))


def questions(folder: Path) -> list[Question]:
    """All answerable questions, in file order."""
    with (folder / "questions.jsonl").open("rb") as lines:
        items = [orjson.loads(line) for line in lines]
    return [Question(q["product"], q["question"], frozenset(q["citations"]), q["type"]) for q in items]


def events(folder: Path, product: str) -> list[Event]:
    """Events of one product, ascending by (ts, id); ids are unique."""
    herb = orjson.loads((folder / f"{product}.json").read_bytes())
    found = [
        *_messages(product, herb["slack"]),
        *_documents(product, herb["documents"]),
        *_meetings(product, herb["meeting_transcripts"]),
        *_chats(product, herb["meeting_chats"]),
        *_pull_requests(product, herb["prs"]),
    ]
    found += _links(product, herb["urls"], sorted(found, key=lambda event: event.order))
    assert len({event.id for event in found}) == len(found), "an id names one event"
    return sorted(found, key=lambda event: event.order)


def _messages(product: str, items: Sequence[Item]) -> Iterator[Event]:
    for item in items:
        said = item["Message"]["User"]
        yield Event(
            entity=product,
            ts_us=_ts_us(said["timestamp"]),
            id=item["id"],
            source="slack",
            kind="message",
            thread=item["Channel"]["name"],
            text=said["text"],
            attrs={"channel": item["Channel"]["name"], "user": said["userId"]},
        )


def _documents(product: str, items: Sequence[Item]) -> Iterator[Event]:
    for item in items:
        parts = [item["type"], item["content"]]
        if item.get("feedback"):
            parts.append(f"Feedback\n{item['feedback']}")
        yield Event(
            entity=product,
            ts_us=_ts_us(item["date"]),
            id=item["id"],
            source="documents",
            kind="document",
            text="\n".join(parts),
            attrs={"author": item["author"], "type": item["type"], "link": item["document_link"]},
        )


def _meetings(product: str, items: Sequence[Item]) -> Iterator[Event]:
    for item in items:
        yield Event(
            entity=product,
            ts_us=_ts_us(item["date"]),
            id=item["id"],
            source="meetings",
            kind="transcript",
            thread=item["id"],
            text=item["transcript"],
            attrs={"participants": list(item["participants"])},
        )


def _chats(product: str, items: Sequence[Item]) -> Iterator[Event]:
    """The first line of a chat's text is its time."""
    for item in items:
        time, _, text = item["text"].partition("\n")
        yield Event(
            entity=product,
            ts_us=_ts_us(time),
            id=item["id"],
            source="meetings",
            kind="meeting_chat",
            thread=item["id"].removesuffix(CHAT_SUFFIX),
            text=text,
        )


def _pull_requests(product: str, items: Sequence[Item]) -> Iterator[Event]:
    for item in items:
        reviews = [f"{review['state']}: {review['comment']}" for review in item["reviews"]]
        yield Event(
            entity=product,
            ts_us=_ts_us(item["created_at"]),
            id=item["id"],
            source="github",
            kind="pull_request",
            text="\n".join([item["title"], item["summary"], *reviews]),
            attrs={
                "link": item["link"],
                "number": int(item["number"]),
                "state": item["state"],
                "merged": item["merged"] == "True",
                "user": item["user"]["login"],
            },
        )


def _links(product: str, items: Sequence[Item], others: Sequence[Event]) -> Iterator[Event]:
    """A link listed twice is one event with both descriptions."""
    descriptions: dict[str, dict[str, None]] = {}
    for item in items:
        descriptions.setdefault(item["id"], {})[item["description"]] = None
    for item in {each["id"]: each for each in items}.values():
        mentions = (event.ts_us for event in others if event.kind == "message" and item["link"] in (event.text or ""))
        yield Event(
            entity=product,
            ts_us=next(mentions, others[0].ts_us),
            id=item["id"],
            source="links",
            kind="link",
            text="\n".join([*descriptions[item["id"]], item["link"]]),
            attrs={"link": item["link"]},
        )


def _ts_us(time: str) -> int:
    """HERB's local time -> microseconds since 1970, two years earlier. A 29 February becomes the 28th."""
    moment = dt.datetime.fromisoformat(time)
    year = moment.year - YEARS_BACK
    if (moment.month, moment.day) == (2, 29):
        moment = moment.replace(day=28)
    delta = moment.replace(year=year, tzinfo=dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return delta // dt.timedelta(microseconds=1)


def main() -> int:
    folder = data_folder()
    if folder is None:
        print("HERB is not here: set CONTEXT_PLANE_EVAL_DATA to the folder that holds herb/", file=sys.stderr)
        return 2
    for product in products(folder):
        for event in events(folder, product):
            sys.stdout.buffer.write(orjson.dumps(event_record(event), option=orjson.OPT_APPEND_NEWLINE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
