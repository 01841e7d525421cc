from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import nbloader
from nbloader.errors import InvalidArgumentError
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM


def test_the_event_loop_is_never_held_for_half_a_second(demo_hub: LocalHub, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    pauses: list[float] = []

    async def heartbeat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            pauses.append(now - last)
            last = now

    async def main() -> object:
        beating = asyncio.create_task(heartbeat())
        model = await nbloader.aload(
            MINILM, device="cpu", endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none"
        )
        beating.cancel()
        return model

    assert isinstance(asyncio.run(main()), SentenceTransformer)
    assert len(pauses) > 10
    assert max(pauses) < 0.5


def test_an_unknown_keyword_is_named() -> None:
    async def main() -> None:
        await nbloader.aload(MINILM, colour="red")  # type: ignore[call-arg]

    with pytest.raises(InvalidArgumentError, match="aload has no argument 'colour'"):
        asyncio.run(main())
