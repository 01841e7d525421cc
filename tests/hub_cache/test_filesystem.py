from __future__ import annotations

from pathlib import Path

import pytest

from nbloader.hub_cache.filesystem import replacing


def test_the_new_takes_the_place_of_the_old(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with replacing(target, tmp_path / "scratch") as scratch:
        scratch.write_text("new")
        assert target.read_text() == "old"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("target", "new")]


def _broken(target: Path, scratch: Path, error: type[BaseException]) -> None:
    with replacing(target, scratch):
        scratch.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_is_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(error):
        _broken(target, tmp_path / "scratch", error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("target", "old")]


def test_where_nothing_can_be_replaced_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(IsADirectoryError), replacing(target, tmp_path / "scratch") as scratch:
        scratch.write_text("new")
    assert list(tmp_path.iterdir()) == [target]
