"""The route that puts many items in one request, of which each line is an item."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import SERVER_ERRORS, documented
from api.routes.metadata import MAX_BODY_BYTES, MAX_RECORDS, ItemRecord
from api.schemas import ResponseBody, json_response
from models.errors import InvalidRecord, MessageRefused, Unavailable
from models.metadata_records import Properties, validate_properties
from models.tokens import merged_token

PATH = "/items/batch"

MAX_ITEMS = 10_000
"""Items of a request."""

MAX_LINE_BYTES = MAX_BODY_BYTES // MAX_RECORDS
"""Longest line: one record of the greatest length, all escaped."""

SENT_AT_ONCE, BYTES_AT_ONCE = 250, 1024 * 1024
"""Most records, and bytes of their lines, that are held before they are sent."""

MAX_ERRORS = 1000
"""Refused lines that an answer names; all are counted."""

LINES = "application/octet-stream"
"""Type of a body in the document, whose tools know none of NDJSON; any type is taken."""

EXAMPLE: Final = '{"itemId": "i9", "properties": {"GENRES": "horror|space"}}\n'

router = APIRouter()
_decoder = msgspec.json.Decoder(ItemRecord)


class LineError(ResponseBody, frozen=True):
    """A line that was refused, by its number from 1, and why."""

    line: int
    message: str


class ItemBatchResult(ResponseBody, frozen=True):
    """Accepted and refused lines of a request."""

    accepted: int
    refused: int
    errors: Annotated[
        list[LineError], Meta(description=f"The first {MAX_ERRORS} lines that were refused.")
    ]
    after: Annotated[
        str | None,
        Meta(
            description="Token for ?after=: wait until these records are in effect. Null if none"
            " was accepted, or if they went to more partitions than a token names."
        ),
    ]


BODY = {
    "required": True,
    "content": {LINES: {"schema": {"type": "string", "format": "binary"}, "example": EXAMPLE}},
    "description": f"NDJSON: on each line an item as in PUT /items, {MAX_ITEMS} at most.",
}


@router.post(
    PATH,
    **documented(
        ItemBatchResult,
        f"Put metadata of up to {MAX_ITEMS} items, a line each",
        status=202,
        errors=SERVER_ERRORS
        | {400: "No line is an item that can be accepted.", 413: "The body is too large."},
        other={207: (ItemBatchResult, "Some lines were refused.")},
        request_body=BODY,
    ),
)
async def put_item_batch(request: Request) -> Response:
    """Reads, checks and sends lines as they come; what Kafka has acknowledged is accepted.

    A bad line is refused alone. Where Kafka or the connection fails in between, the lines before
    are accepted: each record replaces an older one, so the request can be sent again as a whole.
    """
    services: Services = request.app.state.services
    await services.audit(request.scope, "put_items", [PATH], services.settings.group)
    batch = _Batch(services)
    async for number, line in _numbered_lines(request.stream()):
        await batch.take(number, line)
    result = await batch.finish()
    if not result.accepted:
        first = result.errors[0] if result.errors else LineError(1, "the body has no line")
        raise InvalidRecord(f"no item is accepted: line {first.line}: {first.message}")
    return json_response(result, 207 if result.refused else 202)


class _Batch:
    """The lines of one request: good ones are sent by and by, bad ones reported."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: list[tuple[int, tuple[str, Properties]]] = []
        self._held_bytes = 0
        self._accepted = self._refused = self._n_items = 0
        self._errors: list[LineError] = []
        self._tokens: list[str] = []

    async def take(self, number: int, line: bytes | None) -> None:
        """Check a line, None for one that is too long; sends what is held if that is enough."""
        self._n_items += 1
        if line is None:
            self._refuse(number, f"more than {MAX_LINE_BYTES} bytes")
            return
        if self._n_items > MAX_ITEMS:
            self._refuse(number, f"more than {MAX_ITEMS} items in a request")
            return
        try:
            record = _decoder.decode(line)
            validate_properties("items", record.item_id, record.properties)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRecord) as error:
            self._refuse(number, str(error))
            return
        self._held.append((number, (record.item_id, record.properties)))
        self._held_bytes += len(line)
        if len(self._held) >= SENT_AT_ONCE or self._held_bytes >= BYTES_AT_ONCE:
            await self._send()

    async def finish(self) -> ItemBatchResult:
        """Send what is held, and give the result."""
        await self._send()
        self._errors.sort(key=lambda one: one.line)
        token = merged_token(self._tokens) if self._tokens else None
        return ItemBatchResult(self._accepted, self._refused, self._errors, token)

    async def _send(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if not held:
            return
        try:
            try:
                await self._put([record for _, record in held])
            except MessageRefused:
                # One of them is too long for the topic: each on its own tells which.
                for number, record in held:
                    try:
                        await self._put([record])
                    except MessageRefused as error:
                        self._refuse(number, str(error))
        except Unavailable as error:
            if not self._accepted:
                raise
            raise Unavailable(
                f"{self._accepted} items are accepted; from line {held[0][0]} on, send them"
                f" again: {error}"
            ) from error

    async def _put(self, records: list[tuple[str, Properties]]) -> None:
        group = self._services.settings.group
        self._tokens.append(await self._services.publisher.put("items", group, records))
        self._accepted += len(records)

    def _refuse(self, number: int, message: str) -> None:
        self._refused += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(LineError(number, message))


async def _numbered_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes | None]]:
    """Lines that are not blank by number from 1; None for one that is too long. Holds one line."""
    number, held, is_long = 1, bytearray(), False
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            held += end
            if is_long or len(held) > MAX_LINE_BYTES:
                yield number, None
            elif not held.isspace() and held:
                yield number, bytes(held)
            number, is_long = number + 1, False
            held.clear()
        held += rest
        if len(held) > MAX_LINE_BYTES:
            held.clear()
            is_long = True
    if is_long:
        yield number, None
    elif held and not held.isspace():
        yield number, bytes(held)
