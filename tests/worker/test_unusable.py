"""What the system refuses: the error names the file that is at fault, and its cure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from nbloader.worker.unusable import unusable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def refused(path: Path | str | None, number: int = errno.EACCES) -> OSError:
    return OSError(number, os.strerror(number), path if path is None else str(path))


def test_what_is_no_part_of_the_cache_is_the_cache(cache: Path) -> None:
    for path in (None, "relative", cache, cache / "new", cache.parent, cache.parent / "other"):
        error = unusable(refused(path))
        assert error.message == f"the cache folder {cache} cannot be written"


def test_a_folder_in_the_cache_is_named(cache: Path) -> None:
    repo = cache / "models--org--name"
    repo.mkdir()
    error = unusable(refused(repo / "blobs" / "new"))
    assert error.message == f"{repo} cannot be written: Permission denied"
    assert f"(chmod -R u+rwX {repo})" in error.hint
    assert "`cache_dir=`" in error.hint
    error = unusable(refused(repo, errno.EROFS))
    assert error.message == f"{repo} cannot be written: Read-only file system"
    assert "chmod" not in error.hint


def test_a_file_that_is_another_users_says_whose(cache: Path) -> None:
    lock = cache / "lock with a blank"
    lock.touch()
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(lock, 12345, 12345)
    error = unusable(refused(lock))
    assert "It belongs to user 12345" in error.hint
    assert f"""sudo chown -R "$(id -un)" '{lock}'""" in error.hint


def test_what_may_not_be_read_is_named_where_it_lies(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, name = cache / "blob", cache / "name"
    blob.touch()
    name.symlink_to(blob)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert unusable(refused(name)).message == f"{blob} cannot be read: Permission denied"


def test_what_is_in_the_way_is_named(cache: Path) -> None:
    (cache / "link").symlink_to("/etc")
    error = unusable(OSError(errno.ELOOP, "a link stands there", str(cache / "link")))
    assert error.message == f"{cache}/link is in the way: a link stands there"
    assert "`local_dir=`" in unusable(refused(cache / "link", errno.EEXIST), str(cache)).hint


def test_a_tokens_file_is_not_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    error = unusable(refused(cache / "token"))
    assert error.reference == "invalid-token"
    assert error.message == f"the token's file {cache}/token cannot be read: Permission denied"


def test_certificates_that_are_not_there_are_not_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(cache / "ca.pem"))
    error = unusable(refused(None, errno.ENOENT))
    assert error.reference == "hub-unreachable"
    assert error.message == f"SSL_CERT_FILE names {cache}/ca.pem, which cannot be read"
    assert "unset SSL_CERT_FILE" in error.hint
