"""Certificates of a local Hub that serves over TLS, made by the command line of OpenSSL."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

__all__ = ["CertificateError", "make_certificates"]

_DAYS = "30"
_LIMIT_S = 30.0
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class CertificateError(RuntimeError):
    """No certificates could be made."""


def make_certificates(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for this machine, and an authority that vouches for it.

    Clients trust the server once `SSL_CERT_FILE` names the authority's file. Its key is thrown
    away, so that nothing else can be signed with it.

    Args:
        folder: takes the files; those of an earlier start are replaced.

    Returns:
        What the server speaks TLS with, and the file of the authority.

    Raises:
        CertificateError: there is no `openssl`, or it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    own, own_key = folder / "server.pem", folder / "server.key"
    asked, extensions = folder / "server.csr", folder / "server.ext"
    # The Rust of Xet's client takes no certificate that is its own authority.
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"
    )
    try:
        _openssl(
            "req",
            "-x509",
            *_KEY,
            "-keyout",
            authority_key,
            "-out",
            authority,
            "-days",
            _DAYS,
            "-subj",
            "/CN=local Hub",
        )
        _openssl("req", "-new", *_KEY, "-keyout", own_key, "-out", asked, "-subj", "/CN=localhost")
        _openssl(
            "x509",
            "-req",
            "-in",
            asked,
            "-CA",
            authority,
            "-CAkey",
            authority_key,
            "-CAcreateserial",
            "-days",
            _DAYS,
            "-extfile",
            extensions,
            "-out",
            own,
        )
    finally:
        authority_key.unlink(missing_ok=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, own_key)
    return context, authority


def _openssl(*arguments: str | Path) -> None:
    try:
        subprocess.run(
            ["openssl", *map(str, arguments)],  # noqa: S607 - whichever is first in the path
            capture_output=True,
            timeout=_LIMIT_S,
            check=True,
        )
    except FileNotFoundError:
        raise CertificateError(
            "`openssl` is missing; Debian and Ubuntu have it in openssl"
        ) from None
    except subprocess.CalledProcessError as error:
        raise CertificateError(f"openssl failed: {error.stderr.decode(errors='replace')}") from None
    except subprocess.TimeoutExpired:
        raise CertificateError(f"openssl took longer than {_LIMIT_S:.0f} s") from None
