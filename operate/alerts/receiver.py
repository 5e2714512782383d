"""The HTTP side: who may post, how much, how fast; everything else is behind it."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse

from operate.alerts import answers
from operate.alerts.accepting import Acceptance
from operate.alerts.authentication import Authentication
from operate.alerts.pace import Pace, Rate
from operate.alerts.turned_away import Turned, TurnedAway
from recovery.errors import BadInput
from recovery.journal.store import JournalUnavailable
from recovery.run import release

BODY_BYTES_MAX = 4 << 20
BODY_WITHIN_SECONDS = 20.0
AGAIN_SECONDS = 5
KNOWN = Rate(at_once=2000, a_second=200)
STRANGERS = Rate(at_once=20, a_second=0.5)
UNPROVEN_OF_ONE_MAX = 2
logger = logging.getLogger("recovery.alerts")


@dataclass
class Gate:
    """Who may post, how much and how fast.

    Bodies are read by few at a time, and by fewer still of those who are known by nothing but what
    the body will show: memory is bounded whatever is sent.
    """

    authentication: Authentication
    turned_away: TurnedAway
    body_bytes_max: int = BODY_BYTES_MAX
    known: Pace = field(default_factory=lambda: Pace(KNOWN))
    strangers: Pace = field(default_factory=lambda: Pace(STRANGERS))
    clock: Callable[[], float] = time.time
    of_known: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    of_unproven: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    unproven: Counter[str] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def heard(self, request: Request) -> AsyncIterator[bytes]:
        """Give the body of a request of somebody who may post.

        Alertmanager drops what was answered with 4xx and sends again what was answered with 5xx:
        who is known and too fast or slow is told 503, so that nothing of theirs is lost, and
        people are told of what is lost all the same.

        Raises:
            Turned: it is of nobody who may, too fast, too large, too slow or packed.
        """
        address = request.client.host if request.client else "unknown"
        if not self.authentication.is_wanted:
            _refuse_page(request)
        if not self.authentication.is_signed(request.headers):
            sender = await self._known_by_headers(request, address)
            self._refuse_haste(sender)
            async with self.of_known:
                with self.turned_away.heeding(sender):
                    yield await _body(request, self.body_bytes_max)
            return
        if not self.authentication.is_signed_lately(request.headers, self.clock()):
            self._refuse_stranger("", address)
        with self._one_of_few(address):
            async with self.of_unproven:
                body = await self._unproven_body(request, address)
                sender = await run_in_threadpool(
                    self.authentication.by_signature, request.headers, body, self.clock()
                )
                self._refuse_stranger(sender, address)
                self._refuse_haste(sender)
                with self.turned_away.heeding(sender):
                    yield body

    @contextlib.contextmanager
    def _one_of_few(self, address: str) -> Iterator[None]:
        """Let nobody who has proven nothing keep all others out: few at a time from one address."""
        if self.unproven[address] >= UNPROVEN_OF_ONE_MAX or not self.strangers.has_left(address):
            raise Turned(503, "too many at once from here: try again", _later())
        self.unproven[address] += 1
        try:
            yield
        finally:
            self.unproven[address] -= 1
            if not self.unproven[address]:
                del self.unproven[address]

    async def _unproven_body(self, request: Request, address: str) -> bytes:
        try:
            return await _body(request, self.body_bytes_max)
        except Turned:
            self.strangers.allows(address)  # it counts as an attempt
            raise

    async def admitted(self, request: Request) -> None:
        """See that somebody who may ask for something asks.

        Raises:
            Turned: nobody who may, or too fast.
        """
        address = request.client.host if request.client else "unknown"
        self._refuse_haste(await self._known_by_headers(request, address))

    async def _known_by_headers(self, request: Request, address: str) -> str:
        if not self.authentication.is_wanted:
            return address
        sender = await run_in_threadpool(self.authentication.by_headers, request.headers)
        self._refuse_stranger(sender, address)
        return sender

    def _refuse_stranger(self, sender: str, address: str) -> None:
        if sender:
            return
        if not self.strangers.allows(address):
            raise Turned(429, "too many attempts", _later())
        logger.warning("turned away a request from %s: nobody is known by it", address)
        raise Turned(401, "say who you are", {"WWW-Authenticate": "Bearer, Basic"})

    def _refuse_haste(self, sender: str) -> None:
        if not self.known.allows(sender):
            raise Turned(503, "too fast: try again", _later())


def make_app(acceptance: Acceptance, gate: Gate, standing: Callable[[], dict[str, Any]]) -> FastAPI:
    """Make the application.

    Args:
        acceptance: takes payloads in.
        gate: who may post.
        standing: says how the receiver stands, for `/status` and `/healthz`.
    """
    app = FastAPI(
        title="Alert receiver",
        version=release(),
        description="Turns alerts into recoveries, by the routes of its file.",
        docs_url=None,
        redoc_url=None,
        lifespan=_quietly,
    )
    app.add_exception_handler(Turned, _turn)

    async def take(request: Request) -> Response:
        try:
            async with gate.heard(request) as body:
                kept = await run_in_threadpool(acceptance.take, body)
        except BadInput as error:
            problem = {"field": error.field, "error": error.seen, "remedy": error.remedy}
            return JSONResponse(problem, 400)
        except JournalUnavailable as error:
            logger.error("nothing is accepted: %s", error)  # noqa: TRY400 (one line says it)
            raise Turned(503, "it cannot be kept now: try again", _later()) from None
        return JSONResponse(kept, 202)

    for path, summary, schema in answers.POSTED:
        app.add_api_route(
            path,
            take,
            methods=["POST"],
            status_code=202,
            summary=summary,
            response_class=JSONResponse,
            responses=answers.RESPONSES,
            openapi_extra=answers.posted(schema),
        )

    @app.get("/healthz", summary="Whether alerts can be kept", responses=answers.HEALTH)
    async def healthz() -> Response:
        told = await run_in_threadpool(standing)
        brief = {name: told[name] for name in ("status", "store")}
        return JSONResponse(brief, 200 if told["status"] == "ok" else 503)

    @app.get("/status", summary="How the receiver stands", responses=answers.STATUS)
    async def status(request: Request) -> Response:
        await gate.admitted(request)
        return JSONResponse(await run_in_threadpool(standing))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(answers.page(app.openapi()), headers=answers.PAGE_HEADERS)

    return app


@contextlib.asynccontextmanager
async def _quietly(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def _turn(_request: Request, turned: Exception) -> Response:
    if not isinstance(turned, Turned):
        raise turned
    return JSONResponse({"error": turned.told}, turned.status, turned.headers)


def _refuse_page(request: Request) -> None:
    """Refuse what a web page can have a browser post, where nobody has to say who they are.

    Raises:
        Turned: it has an Origin, or is of a type that a page need not ask for.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "origin" in request.headers or kind != "application/json":
        raise Turned(403, "send it as application/json, and not from a web page")


def _later() -> dict[str, str]:
    return {"Retry-After": str(AGAIN_SECONDS)}


async def _body(request: Request, bytes_max: int) -> bytes:
    """Read the body, up to a size and a deadline. What is too slow is to be sent again.

    Raises:
        Turned: it is too large, too slow, or packed.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Turned(415, "send it as it is: no Content-Encoding is read")
    too_large = Turned(413, f"it has more than {bytes_max} bytes: send fewer alerts at once")
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > bytes_max:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise too_large
    except TimeoutError:
        seen = f"it did not arrive within {BODY_WITHIN_SECONDS:.0f} s: try again"
        raise Turned(503, seen, _later()) from None
    return bytes(body)
