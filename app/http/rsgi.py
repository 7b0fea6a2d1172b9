"""Runs the WSGI application on granian's RSGI interface: bodies are received before a thread is taken.

The event loop never runs application code. It receives a request's body, whole and with a deadline, or hands an upload
to its thread piece by piece; threads run Flask and answer by themselves.
"""

import asyncio
import io
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge, RequestTimeout

from app.http.transfers import Download, MinimumRate, Upload, send
from app.web.bodies import MAX_BYTES

log = logging.getLogger(__name__)

Environ = dict[str, Any]
Answer = tuple[int, list[tuple[str, str]], bytes]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

SMALL_BODY_BYTES = 16 << 10
"""Bodies up to this length are received by one call; the memory for all of a process's connections is bounded."""
PENDING_BYTES = 64 << 20
"""Bytes of larger bodies that a process keeps while they are incomplete; beyond it, they are refused."""
WATCHER = "CallbackWatcherHTTP"
INTERNAL_ERROR = 500, [("Content-Type", "text/plain")], b"Internal Server Error"

COMMON_ENVIRON: Mapping[str, Any] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "Granian",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}
PROTOCOLS = {"1": "HTTP/1", "1.1": "HTTP/1.1", "2": "HTTP/2"}
UNPREFIXED = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Threads for requests and for uploads, seconds in which a body must arrive, and the rate of transfers."""

    request_threads: int
    upload_threads: int
    body_seconds: float
    rate: MinimumRate


class Gateway:
    """What granian calls for each request of a worker process."""

    def __init__(self, application: Application, is_streamed: Callable[[str, str], bool], limits: Limits) -> None:
        """`is_streamed` says of a method and a path whether the application reads that body piece by piece."""
        self._application = application
        self._is_streamed = is_streamed
        self._limits = limits
        self._requests = _ThreadPool(limits.request_threads)
        self._uploads = _ThreadPool(limits.upload_threads)
        self._finished: deque[asyncio.Future[None]] = deque()
        self._waiting_bytes = 0

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian in the worker process before its first request.

        Requests without a body go to a thread right from granian's: a turn of the loop for each takes as long as Flask
        does. granian passes each request's coroutine and its watcher to `call_soon_threadsafe`; should a version do
        that otherwise, all requests take the loop, as those with a body do.
        """
        schedule = loop.call_soon_threadsafe

        def call_soon_threadsafe(callback: Any, *arguments: Any, **more: Any) -> Any:
            if len(arguments) == 2 and type(arguments[1]).__name__ == WATCHER and self._serve_at_once(*arguments):
                return None
            return schedule(callback, *arguments, **more)

        loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[method-assign, assignment]

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian in the worker process after its last request."""
        self._wake_finished()
        loop.run_until_complete(asyncio.sleep(0))

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        self._wake_finished()
        headers = scope.headers
        length = headers.get("content-length")
        if _has_body(scope):
            if self._is_streamed(scope.method, scope.path):
                await self._upload(scope, protocol)
                return
            body = await self._receive(protocol, int(length) if length and length.isdigit() else None)
        else:
            body = io.BytesIO()
        finished = asyncio.get_running_loop().create_future()
        self._requests.run(self._serve, scope, protocol, body, finished)
        await finished

    def _serve_at_once(self, coroutine: Coroutine[Any, Any, None], watcher: Any) -> bool:
        """Serve a request that has no body, if this is one."""
        scope = watcher.scope
        if _has_body(scope):
            return False
        coroutine.close()
        self._requests.run(self._serve, scope, watcher.proto, io.BytesIO(), None)
        return True

    def _wake_finished(self) -> None:
        """End the tasks of answered requests. Threads leave that to the next request: waking the loop costs more."""
        while self._finished:
            finished = self._finished.popleft()
            if not finished.done():  # cancelled
                finished.set_result(None)

    async def _receive(self, protocol: HTTPProtocol, length: int | None) -> Any:
        """The complete body, or an input that raises what is wrong with it."""
        if length is not None and length > MAX_BYTES:
            return _FailedInput(RequestEntityTooLarge())
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                if length is not None and length <= SMALL_BODY_BYTES:
                    return io.BytesIO(await protocol())
                return await self._collect(protocol)
        except TimeoutError:
            return _FailedInput(RequestTimeout("The body of the request did not arrive in time."))
        except (ProtocolClosed, ClientDisconnected):
            return _FailedInput(ClientDisconnected())

    async def _collect(self, protocol: HTTPProtocol) -> Any:
        parts: list[bytes] = []
        count = 0
        chunks = _chunks(protocol)
        try:
            while (part := await chunks()) is not None:
                parts.append(part)
                count += len(part)
                self._waiting_bytes += len(part)
                if count > MAX_BYTES or self._waiting_bytes > PENDING_BYTES:
                    return _FailedInput(RequestEntityTooLarge())
        finally:
            self._waiting_bytes -= count
        return io.BytesIO(b"".join(parts))

    async def _upload(self, scope: Scope, protocol: HTTPProtocol) -> None:
        loop = asyncio.get_running_loop()
        body = Upload(_chunks(protocol), self._limits.rate)
        answered: asyncio.Future[Answer] = loop.create_future()

        def serve() -> None:
            answer = self._answer(scope, body)
            if isinstance(answer, _StreamedAnswer):
                answer.body.close()
                answer = INTERNAL_ERROR
            loop.call_soon_threadsafe(answered.set_result, answer)

        self._uploads.run(serve)
        answer = await answered
        await body.finish()
        protocol.response_bytes(*answer)

    def _serve(self, scope: Scope, protocol: HTTPProtocol, body: Any, finished: asyncio.Future[None] | None) -> None:
        """In a thread: run the application and send its answer."""
        answer = self._answer(scope, body)
        try:
            if isinstance(answer, _StreamedAnswer):
                threading.Thread(target=self._send, args=(scope, protocol, answer, finished), daemon=True).start()
                return
            protocol.response_bytes(*answer)
        except BaseException:
            log.exception("%s %s could not be answered", scope.method, scope.path)
            if isinstance(answer, _StreamedAnswer):  # there are too many threads
                answer.body.close()
        if finished is not None:
            self._finished.append(finished)

    def _send(
        self, scope: Scope, protocol: HTTPProtocol, answer: "_StreamedAnswer", finished: asyncio.Future[None] | None
    ) -> None:
        try:
            send(
                answer.body,
                lambda path: protocol.response_file(answer.status, answer.headers, path),
                self._limits.rate,
                scope.client,
            )
        except BaseException:
            log.exception("%s %s broke off", scope.method, scope.path)
        if finished is not None:
            self._finished.append(finished)

    def _answer(self, scope: Scope, body: Any) -> "Answer | _StreamedAnswer":
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            started[:] = int(status[:3]), headers

        try:
            result = self._application(environ_of(scope, body), start_response)
            if isinstance(result, Download) and result.length > MAX_BYTES:
                return _StreamedAnswer(started[0], started[1], result)
            try:
                content = b"".join(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
            return started[0], started[1], content
        except BaseException:
            log.exception("%s %s failed", scope.method, scope.path)
            return INTERNAL_ERROR


@dataclass(frozen=True, slots=True)
class _StreamedAnswer:
    """An answer whose body is sent through a pipe."""

    status: int
    headers: list[tuple[str, str]]
    body: Download


class _FailedInput(io.RawIOBase):
    """The input of a request whose body is not complete."""

    def __init__(self, error: HTTPException) -> None:
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: Any) -> int:
        raise self._error


class _ThreadPool:
    """A bounded pool of threads, each started when it is first needed."""

    def __init__(self, most: int) -> None:
        self._work: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._unstarted = most
        self._starting = threading.Lock()

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        """Queue the work."""
        self._work.put((work, arguments))
        if self._unstarted and not self._idle.acquire(blocking=False):
            with self._starting:
                if self._unstarted:
                    self._unstarted -= 1
                    threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            work, arguments = self._work.get()
            try:
                work(*arguments)
            except BaseException:
                log.exception("A request failed")
            del work, arguments
            if self._unstarted:
                self._idle.release()


def _chunks(protocol: HTTPProtocol) -> Callable[[], Any]:
    """A function that returns the next part of a body, None after its end. Raises ClientDisconnected.

    granian ends a complete body with one empty part, and a broken one with two: the first stands for the error that it
    does not pass on. Trailers are an empty part as well, so a body with trailers counts as broken.
    """
    parts = aiter(protocol)

    async def next_part() -> bytes | None:
        part = await anext(parts)
        if part:
            return bytes(part)
        try:
            await anext(parts)
        except StopAsyncIteration:
            return None
        raise ClientDisconnected

    return next_part


def environ_of(scope: Scope, body: Any) -> Environ:
    """The WSGI environ of a request, as PEP 3333 and granian's own WSGI interface have it."""
    path = scope.path.encode().decode("latin-1")
    host, port = _address(scope.server)
    environ = {
        **COMMON_ENVIRON,
        "SERVER_PROTOCOL": PROTOCOLS.get(scope.http_version, "HTTP/1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "REMOTE_ADDR": _address(scope.client)[0],
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": path,
        "QUERY_STRING": scope.query_string,
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": body,
    }
    headers = scope.headers
    for name, value in headers.items():
        if "_" in name:  # in WSGI it equals the header with hyphens, which a proxy may have set
            continue
        key = _key(name)
        if key in environ:
            if key in UNPREFIXED.values():
                continue
            value = f"{environ[key]}{';' if key == 'HTTP_COOKIE' else ','}{value}"
        environ[key] = value
    if "HTTP_HOST" not in environ:
        environ["HTTP_HOST"] = scope.authority or ""
    return environ


@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    return UNPREFIXED.get(name) or f"HTTP_{name.upper().replace('-', '_')}"


@lru_cache(maxsize=1024)
def _address(text: str) -> tuple[str, str]:
    """Address and port of ADDRESS:PORT, without brackets and zone."""
    host, _, port = text.rpartition(":")
    return host.strip("[]").partition("%")[0], port


def _has_body(scope: Scope) -> bool:
    headers = scope.headers
    return (
        headers.get("content-length") not in (None, "0") or "transfer-encoding" in headers or scope.http_version == "2"
    )
