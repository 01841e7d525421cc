"""Sends an answer as the faults of its request want it."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import time
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from nbloader.localhub.answers import Answer, Effect, FilePart, invert, json_answer
from nbloader.localhub.records import Cut
from nbloader.localhub.traffic import Entry, TrafficLog

_SLICE = 8 << 20
"""Bytes that are handed to the kernel, and counted, in one go."""

_TLS_SLICE = 256 << 10
"""Encrypted here, which the kernel cannot do; meanwhile nobody else is answered."""

_PACED_SLICES_PER_S = 20
_SMALLEST_SLICE = 1024
_FLUSH_TIMEOUT_S = 10.0


def apply(answer: Answer, effect: Effect) -> Answer:
    """Return the answer with those faults that need no connection: errors and truncation."""
    if effect.status is not None:
        answer.close()
        try:
            phrase = HTTPStatus(effect.status).phrase
        except ValueError:
            phrase = "Error"
        headers = {"Retry-After": effect.retry_after} if effect.retry_after else None
        return json_answer({"error": phrase}, status=effect.status, headers=headers)
    if effect.etag is not None:
        quoted = f'"{effect.etag}"'
        tagged = {name: quoted for name in ("ETag", "X-Linked-Etag") if name in answer.headers}
        answer = replace(answer, headers={**answer.headers, **tagged})
    if effect.cut is Cut.TRUNCATE and effect.after_bytes < answer.length:
        if isinstance(answer.body, FilePart):
            stop = answer.body.start + effect.after_bytes
            return replace(answer, body=replace(answer.body, stop=stop))
        return replace(answer, body=answer.body[: effect.after_bytes])
    return answer


async def send(
    request: web.Request, answer: Answer, effect: Effect, log: TrafficLog, entry: Entry
) -> web.StreamResponse:
    """Send an answer to the client, and count what is written.

    A client that leaves ends this quietly: the connection is closed then, and nobody is left to
    read an error.
    """
    cut = effect.cut if effect.cut is not Cut.TRUNCATE else None
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = answer.length
    try:
        if cut is not None and (effect.after_bytes == 0 or request.method == "HEAD"):
            await _end(request, cut)
            return response
        entry.status = answer.status
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        count = min(answer.length, effect.after_bytes) if cut else answer.length
        await _send_body(request, response, answer, count, effect, log, entry)
        if cut is not None and effect.after_bytes < answer.length:
            await _end(request, cut)
    except ConnectionError:
        response.force_close()
    finally:
        answer.close()
    return response


async def _send_body(
    request: web.Request,
    response: web.StreamResponse,
    answer: Answer,
    count: int,
    effect: Effect,
    log: TrafficLog,
    entry: Entry,
) -> None:
    loop = asyncio.get_running_loop()
    over_tls = _transport(request).get_extra_info("sslcontext") is not None
    slice_size = _TLS_SLICE if over_tls else _SLICE
    for pace in effect.paces:
        paced = int(pace.bytes_per_second / _PACED_SLICES_PER_S)
        slice_size = min(slice_size, max(_SMALLEST_SLICE, paced))
    done = 0
    while done < count:
        size = min(slice_size, count - done)
        for pace in effect.paces:
            await asyncio.sleep(pace.reserve(size, time.monotonic()))
        log.add_bytes(entry, size)
        written = 0
        try:
            if not isinstance(answer.body, FilePart):
                data = answer.body[done : done + size]
                await response.write(invert(data, done) if effect.wrong_bytes else data)
            elif effect.wrong_bytes or over_tls:
                offset = answer.body.start + done
                answer.body.file.seek(offset)
                data = answer.body.file.read(size)
                await response.write(
                    answer.body.damage(data, offset) if effect.wrong_bytes else data
                )
            else:
                offset = answer.body.start + done
                answer.body.file.seek(offset)
                try:
                    await loop.sendfile(_transport(request), answer.body.file, offset, size)
                finally:
                    # sendfile leaves the position after what it has sent, also when it fails.
                    written = answer.body.file.tell() - offset
            written = size
        finally:
            log.add_bytes(entry, written - size)
        done += size


async def _end(request: web.Request, cut: Cut) -> None:
    """End the connection; what was sent before has reached the client's machine."""
    if cut is Cut.STALL:
        # Cancelled when the client leaves or the server ends.
        await asyncio.Event().wait()
    transport = _transport(request)
    await _flush(transport)
    if cut is Cut.RESET:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()


async def _flush(transport: asyncio.WriteTransport) -> None:
    """Wait until the client's kernel has everything; a reset would discard what it has not."""
    connection = transport.get_extra_info("socket")
    deadline = time.monotonic() + _FLUSH_TIMEOUT_S
    while time.monotonic() < deadline and not transport.is_closing():
        if transport.get_write_buffer_size() == 0:
            # On a socket TIOCOUTQ is SIOCOUTQ: bytes not acknowledged yet (Linux).
            queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            if int.from_bytes(queued, "little") == 0:
                return
        await asyncio.sleep(0.001)


def _transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    return transport
