from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

from nbloader.notebook.background import Background, BackgroundError, import_modules


def test_work_waits_its_turn_and_its_error_reaches_the_waiter() -> None:
    go, order = threading.Event(), []

    def first() -> None:
        go.wait(10)
        order.append("first")

    def second() -> None:
        order.append("second")
        raise KeyError("mine")

    one, two = Background(first), Background(second)
    assert (one.check(), two.check()) == (False, False)
    go.set()
    assert one.wait()
    with pytest.raises(KeyError, match="mine"):
        two.wait()
    assert order == ["first", "second"]


def test_a_cancelled_wait_ends_and_the_work_goes_on() -> None:
    go, cancelled = threading.Event(), threading.Event()
    work = Background(lambda: go.wait(10))
    cancelled.set()
    assert work.wait(cancelled) is False
    go.set()
    assert work.wait() is True


def test_an_interrupt_reaches_the_waiter_and_leaves_the_import_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import threading\ngo.wait(10)\nready = True\n")
    go = threading.Event()
    monkeypatch.setitem(__builtins__, "go", go)  # type: ignore[arg-type]
    monkeypatch.syspath_prepend(str(tmp_path))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            import_modules("slow_to_import")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    go.set()
    Background(lambda: None).wait()
    assert sys.modules["slow_to_import"].ready is True


def test_work_without_imports_waits_for_no_import() -> None:
    go = threading.Event()
    importing = Background(lambda: go.wait(10))
    seen: list[bool] = []
    assert Background(lambda: seen.append(importing.check()), imports=False).wait()
    go.set()
    assert importing.wait()
    assert seen == [False]


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("imports", [True, False])
def test_what_is_no_exception_reaches_the_waiter_as_one(
    error: BaseException, imports: bool
) -> None:
    def work() -> None:
        raise error

    work_ = Background(work, imports=imports)
    for _ in range(2):
        with pytest.raises(BackgroundError, match=type(error).__name__) as caught:
            work_.wait()
        assert caught.value.__cause__ is error
    assert Background(lambda: None).wait()  # The lock was given back.
