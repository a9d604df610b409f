"""Judges on other hosts (verify/service.py): which one is asked, and what if it does not answer?

    grade --fewest in flight--> service --> Verdict
               ^                   |
               '---- elsewhere ----'  unreachable, full or late: counted, and rested for a while

Consumes: places, `requests_per_url` for each service; callers wait for one, which is the back-pressure.
Unblocked by: a reply, or the deadline. Produces: as grade.py; what a service could not judge is asked again.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from apriel_mcore.config.schema import RemoteVerify
from apriel_mcore.errors import InputError, Starved, VerifierError
from apriel_mcore.http_limits import TooLarge, whole
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify import wire
from apriel_mcore.verify.tally import Counts, Tally, TimedOut, Unreachable, note

REST_S = 10.0
"""A service that failed is asked again only after this, or when all others rest too."""
ATTEMPTS_PER_URL = 2
_PAUSE_S = 0.2
_CONNECT_S = 5.0


class RemoteVerifiers:
    """The seam `Judge` over the services of a recipe. Use as `async with`."""

    def __init__(self, config: RemoteVerify, *, token: str) -> None:
        self._config = config
        self._services = [_Service(url.rstrip("/")) for url in config.urls]
        self._places = asyncio.Semaphore(config.requests_per_url * len(config.urls))
        self._tally = Tally()
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._config.deadline_s, sock_connect=_CONNECT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """As VerifierPool.grade; InputError also when a service refuses the token."""
        reply = await self._run(problem, wire.Grade(problem.verifier, problem.reference, text))
        if not isinstance(reply, wire.Graded):
            raise VerifierError(f"problem {problem.id}: expected a verdict, got {reply}")
        return reply.verdict

    async def self_check(self, problem: Problem) -> None:
        """As VerifierPool.self_check."""
        await self._run(problem, wire.Check(problem.verifier, problem.reference))

    def counts(self) -> dict[str, Counts]:
        """Jobs per domain so far."""
        return self._tally.counts()

    def metrics(self) -> dict[str, float]:
        """As Tally.metrics; from any thread."""
        return self._tally.metrics()

    async def _run(self, problem: Problem, request: wire.Grade | wire.Check) -> wire.Reply:
        asked = wire.Asked(
            problem_id=problem.id, domain=problem.domain, source=problem.source, request=request
        )
        body = wire.json_of(asked)
        attempts = ATTEMPTS_PER_URL * len(self._services)
        with self._tally.job(problem.domain, timed=isinstance(request, wire.Grade)) as counts:
            for attempt in range(attempts):
                counts.retried += attempt > 0
                try:
                    reply = await self._attempt(body)
                except VerifierError as error:
                    note(counts, error)
                    if attempt + 1 == attempts or not isinstance(error, Unreachable):
                        raise
                    await asyncio.sleep(_PAUSE_S * attempt)
                else:
                    counts.graded += isinstance(reply, wire.Graded)
                    return reply
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, body: bytes) -> wire.Reply:
        with self._tally.queue():
            await self._places.acquire()
        service = min(self._services, key=_Service.reluctance)
        service.in_flight += 1
        try:
            async with self._http.post(f"{service.url}/judge", data=body) as response:
                content = await whole(response.content, limit=wire.MAX_REPLY)
                return _read(response.status, content, service.url)
        except Unreachable:
            service.rest()
            raise
        except (aiohttp.ClientError, TimeoutError, TooLarge, msgspec.MsgspecError) as error:
            service.rest()
            raise Unreachable(f"{service.url}: {type(error).__name__}: {error}") from error
        finally:
            service.in_flight -= 1
            self._places.release()


class _Service:
    """One address and how it has been lately."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self._rests_until = 0.0

    def rest(self) -> None:
        """Ask others for a while."""
        self._rests_until = time.monotonic() + REST_S

    def reluctance(self) -> tuple[float, int]:
        """Awake ones first, then the one with the fewest requests; resting ones by when they wake."""
        return max(0.0, self._rests_until - time.monotonic()), self.in_flight


def _read(status: int, content: bytes, url: str) -> wire.Reply:
    if status == 401:
        raise InputError(
            f"{url}: refuses the token; verify.token_file must hold what the service started with"
        )
    if status in (400, 413):
        raise InputError(f"{url}: {content[:300].decode(errors='replace')}; is it of this version?")
    if status != 200:
        raise Unreachable(f"{url}: status {status}: {content[:300].decode(errors='replace')}")
    match wire.decode_answer(content):
        case wire.Refused(message=message):
            raise InputError(message)
        case wire.Late(message=message):
            raise TimedOut(message)
        case wire.Broken(message=message, starved=True):
            raise Starved(message)
        case wire.Broken(message=message):
            raise VerifierError(message)
        case reply:
            return reply
