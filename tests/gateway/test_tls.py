"""HTTPS at the gateway: what clients see, a certificate that is renewed under way, and files that do not fit."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from pydantic import ValidationError
from tests.gateway.certificates import write_certificate
from tests.gateway.world import Echo, door, settings

from genba_gateway.client import Client, Unreachable
from genba_shared.settings import Platform
from genba_shared.tls import Tls


def shown(port: int) -> int:
    """The serial number of the certificate that a newcomer is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=60)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_requests_come_over_tls_and_nothing_over_plain_http(platform: Platform, tmp_path: Path) -> None:
    certificate_file, key_file, serial = write_certificate(tmp_path)
    tls = {"certificate_file": str(certificate_file), "key_file": str(key_file)}
    service = Echo()

    def ask(port: int, key: str) -> httpx.Response:
        trusted = ssl.create_default_context(cafile=str(certificate_file))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, trust_env=False) as client:
            return client.post("/v1/sop/videos", content=b"x" * 300_000, headers={"authorization": f"Bearer {key}"})

    async def story() -> None:
        async with door(settings(platform, tls=tls), mounts={"sop": service}) as opened:
            answer = await asyncio.to_thread(ask, opened.port, opened.key)
            assert answer.status_code == 200, answer.text
            assert service.bodies == [b"x" * 300_000]
            assert service.requests[0]["scheme"] == "https"
            assert await asyncio.to_thread(shown, opened.port) == serial
            with pytest.raises(httpx.HTTPError):
                await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{opened.port}/health", trust_env=False)

    asyncio.run(story())


def test_browsers_are_told_to_stay_on_https_unless_that_is_switched_off(platform: Platform, tmp_path: Path) -> None:
    certificate_file, key_file, _ = write_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate_file))
    tls = {"certificate_file": str(certificate_file), "key_file": str(key_file)}

    async def said(path: str, tls: dict[str, object] | None) -> str | None:
        async with door(settings(platform, tls=tls), mounts={"sop": Echo()}) as opened:
            url = f"{'http' if tls is None else 'https'}://127.0.0.1:{opened.port}{path}"
            answer = await asyncio.to_thread(httpx.get, url, verify=trusted, trust_env=False)
            found: str | None = answer.headers.get("strict-transport-security")
            return found

    for path in ("/console", "/nowhere"):  # an answer, and a refusal
        assert asyncio.run(said(path, {**tls})) == "max-age=86400"
        assert asyncio.run(said(path, {**tls, "hsts_max_age_s": 31_536_000})) == "max-age=31536000"
        assert asyncio.run(said(path, {**tls, "hsts_max_age_s": 0})) is None
        assert asyncio.run(said(path, None)) is None


def test_a_renewed_certificate_is_shown_without_a_restart_and_half_of_one_is_not(
    platform: Platform, tmp_path: Path
) -> None:
    certificate_file, key_file, first = write_certificate(tmp_path)
    tls = {"certificate_file": str(certificate_file), "key_file": str(key_file)}

    async def story() -> None:
        async with door(settings(platform, tls=tls), mounts={"sop": Echo()}) as opened:
            assert await asyncio.to_thread(shown, opened.port) == first
            old_key = key_file.read_bytes()
            _, _, second = write_certificate(tmp_path)
            new_key = key_file.read_bytes()
            key_file.write_bytes(old_key)  # the certificate is there before its key
            opened.server.renew_certificate()
            assert await asyncio.to_thread(shown, opened.port) == first
            key_file.write_bytes(new_key)
            os.utime(key_file, ns=(1, 1))  # whatever the clock of the file system tells
            opened.server.renew_certificate()
            assert await asyncio.to_thread(shown, opened.port) == second

    asyncio.run(story())


def test_the_client_believes_the_file_that_the_environment_names_and_nobody_else(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate_file, key_file, _ = write_certificate(tmp_path)
    tls = {"certificate_file": str(certificate_file), "key_file": str(key_file)}

    def ask(port: int, key: str) -> None:
        url = f"https://127.0.0.1:{port}"
        with Client(url, key, retry_within_s=0) as stranger, pytest.raises(Unreachable):
            stranger.request("GET", "/v1/whoami")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate_file))
        with Client(url, key) as friend:
            assert friend.request("GET", "/v1/whoami")["roles"] == ["admin"]

    async def story() -> None:
        async with door(settings(platform, tls=tls), mounts={"sop": Echo()}) as opened:
            await asyncio.to_thread(ask, opened.port, opened.key)

    asyncio.run(story())


def test_files_that_do_not_fit_are_refused_before_anything_is_served(tmp_path: Path) -> None:
    certificate_file, key_file, _ = write_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key, _ = write_certificate(tmp_path / "other")
    (tmp_path / "sealed").mkdir()
    sealed = write_certificate(tmp_path / "sealed", password=b"a password")[:2]
    assert Tls(certificate_file=certificate_file, key_file=key_file).changed_at
    for files, said in (
        ((certificate_file, other_key), "are no certificate and its key"),
        ((key_file, certificate_file), "are no certificate and its key"),
        (sealed, "without a password"),
        ((certificate_file, tmp_path / "none.key"), "No such file"),
    ):
        with pytest.raises(ValidationError, match=said):
            Tls(certificate_file=files[0], key_file=files[1])
