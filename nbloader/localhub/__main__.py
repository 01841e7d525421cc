"""`python -m nbloader.localhub --root DIR`: serve until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nbloader.localhub.server import Options, serving

_PARENT_CHECK_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    # Asked before anything is printed: a parent that has read the addresses may be gone by then.
    parent = os.getppid()
    args = _parser().parse_args(argv)
    if args.demo:
        from nbloader.localhub import demo

        demo.publish(args.root)
    options = Options(
        root=args.root,
        port=args.port,
        cdn_port=args.cdn_port,
        cas_port=args.cas_port,
        page_size=args.page_size,
        signature_s=args.signature_seconds,
        resolve_cache=args.resolve_cache,
        xet_token_s=args.xet_token_seconds,
        xet_v2=args.xet_v2,
        tls=args.tls,
    )
    with suppress(KeyboardInterrupt):
        watched = parent if args.until_stdin_closes else None
        asyncio.run(_serve(options, args.max_seconds, watched))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nbloader.localhub",
        description="A Hub on loopback. Prints its addresses as one line of JSON when it is ready.",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder with models/<org>/<name>/")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub (default: any)")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the CDN (default: any)")
    parser.add_argument("--cas-port", type=int, default=0, help="port of the CAS (default: any)")
    parser.add_argument(
        "--page-size", type=_positive, default=1000, help="entries of a page of the tree"
    )
    parser.add_argument(
        "--signature-seconds", type=int, default=3600, help="validity of the URLs of CDN and xorbs"
    )
    parser.add_argument(
        "--resolve-cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="redirect small files to /api/resolve-cache first, as the Hub does",
    )
    parser.add_argument(
        "--xet-token-seconds", type=int, default=3600, help="validity of the tokens of the CAS"
    )
    parser.add_argument(
        "--xet-v2",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="answer reconstructions of version 2; without them clients fall back to version 1",
    )
    parser.add_argument("--tls", action="store_true", help="serve over TLS; needs openssl")
    parser.add_argument(
        "--max-seconds", type=float, default=3600.0, help="end after this time whatever happens"
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when stdin or the parent ends"
    )
    parser.add_argument("--demo", action="store_true", help="publish the demo repositories first")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


async def _serve(options: Options, max_seconds: float, parent: int | None) -> None:
    """Serve until the time is over or, given a parent, until it or stdin ends."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.call_later(max_seconds, stop.set)
    async with serving(options) as addresses:
        sys.stdout.write(json.dumps(addresses.to_json()) + "\n")
        sys.stdout.flush()
        if parent is None:
            await stop.wait()
        else:
            threading.Thread(target=_wait_for_end_of_stdin, args=(loop, stop), daemon=True).start()
            # A child of the parent may hold the other end of stdin open.
            while not stop.is_set() and os.getppid() == parent:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S)


def _wait_for_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # os.read, not sys.stdin: a daemon thread inside a buffered reader breaks the exit.
    while os.read(0, 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    sys.exit(main())
