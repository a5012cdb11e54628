"""JSON Web Tokens of a pinned issuer: what is taken, and everything that is not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from pydantic import ValidationError
from tests.gateway.world import Service, answers, door, running, settings

from genba_gateway.jwks import Jwks, TokenVerifier
from genba_gateway.settings import Jwt
from genba_shared.principal import Clearance
from genba_shared.problems import Unauthorized, Unavailable
from genba_shared.settings import Platform

ISSUER, AUDIENCE = "https://id.genba.test", "genba"
SIGNER = ECKey.generate_key("P-256", parameters={"kid": "one"}, auto_kid=False)
OTHER = ECKey.generate_key("P-256", parameters={"kid": "two"}, auto_kid=False)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "tanaka",
        "exp": now + 600,
        "nbf": now - 10,
        "roles": ["operator", "unknown-role"],
        "clearance": "confidential",
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def token(signer: Any = SIGNER, *, header: dict[str, str] | None = None, **changes: Any) -> str:
    return jwt.encode(
        {"alg": "ES256", "kid": "one", **(header or {})},
        claims(**changes),
        signer,
        algorithms=["ES256", "HS256", "RS256"],
    )


def jwks_file(folder: Path, *keys: Any) -> Path:
    path = folder / "jwks.json"
    path.write_bytes(orjson.dumps(KeySet(list(keys)).as_dict(private=False)))
    return path


@pytest.fixture
def issuer(tmp_path: Path) -> Jwt:
    return Jwt(issuer=ISSUER, audience=AUDIENCE, jwks=str(jwks_file(tmp_path, SIGNER)), leeway_s=0)


def verified(issuer: Jwt, text: str) -> Any:
    return asyncio.run(TokenVerifier(issuer).verify(text))


def test_a_good_token_becomes_a_principal(issuer: Jwt) -> None:
    principal, good_until_s = verified(issuer, token(tenant="plant-2", compartments=["line-3"]))
    assert (principal.subject, principal.roles, principal.clearance) == (
        "user:tanaka",
        ("operator",),
        Clearance.CONFIDENTIAL,
    )
    assert (principal.tenant, principal.compartments) == ("plant-2", {"line-3"})
    assert principal.allows("sop:write")
    assert good_until_s > time.time() + 500


def test_a_token_without_roles_or_clearance_may_do_nothing_beyond_the_public(issuer: Jwt) -> None:
    principal, _ = verified(issuer, token(roles=None, clearance=None))
    assert (principal.scopes, principal.clearance) == (frozenset(), Clearance.PUBLIC)


def test_roles_may_be_nested_as_keycloak_has_them(issuer: Jwt) -> None:
    nested = issuer.model_copy(update={"roles_claim": "realm_access.roles"})
    principal, _ = verified(nested, token(realm_access={"roles": ["viewer"]}))
    assert principal.roles == ("viewer",)


def forged() -> dict[str, str]:
    public = orjson.dumps(SIGNER.as_dict(private=False)).decode()
    body = token().split(".")[1]
    none = "eyJhbGciOiJub25lIiwia2lkIjoib25lIn0"  # {"alg":"none","kid":"one"}
    head, payload, signature = token().split(".")
    return {
        "another issuer": token(iss="https://evil.test"),
        "no issuer": token(iss=None),
        "another audience": token(aud="other"),
        "no audience": token(aud=None),
        "an audience list without us": token(aud=["a", "b"]),
        "expired": token(exp=int(time.time()) - 1),
        "no expiry": token(exp=None),
        "an expiry that is a text": token(exp="tomorrow"),
        "not yet good": token(nbf=int(time.time()) + 60),
        "no subject": token(sub=None),
        "a clearance that does not exist": token(clearance="cosmic"),
        "signed by another key under the same name": token(OTHER),
        "no signature": f"{none}.{body}.",
        "the public key as a shared secret": token(OctKey.import_key(public), header={"alg": "HS256"}),
        "an algorithm that is not pinned": token(
            RSAKey.generate_key(2048, parameters={"kid": "one"}, auto_kid=False), header={"alg": "RS256"}
        ),
        "a changed payload": f"{head}.{payload[:-2]}AA.{signature}",
        "not a token": "a.b.c",
        "not base64": "ä.b.c",
        "too long": token(sub="x" * 9000),
    }


def test_every_forged_or_stale_token_is_refused(issuer: Jwt) -> None:
    pinned = issuer.model_copy(update={"algorithms": ("ES256",)})
    taken = []
    for name, text in forged().items():
        try:
            verified(pinned, text)
            taken.append(name)
        except Unauthorized:
            pass
    assert taken == []


@pytest.mark.parametrize("algorithms", [["none"], ["HS256"], ["ES256", "hs512"], []])
def test_settings_that_would_take_forgeable_algorithms_do_not_load(algorithms: list[str]) -> None:
    with pytest.raises(ValidationError):
        Jwt.model_validate({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "x", "algorithms": algorithms})


def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it_but_not_for_every_such_token(tmp_path: Path) -> None:
    async def story() -> None:
        now_s = 1000.0
        path = jwks_file(tmp_path, SIGNER)
        settings_ = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks=str(path))
        verifier = TokenVerifier(settings_, Jwks(str(path), refresh_s=300, clock=lambda: now_s))
        await verifier.verify(token())
        jwks_file(tmp_path, SIGNER, OTHER)
        rotated = token(OTHER, header={"kid": "two"})
        with pytest.raises(Unauthorized):
            await verifier.verify(rotated)
        now_s += 11
        assert (await verifier.verify(rotated))[0].subject == "user:tanaka"

    asyncio.run(story())


def test_a_key_of_a_kind_that_is_not_known_does_not_cost_the_others(tmp_path: Path) -> None:
    known = SIGNER.as_dict(private=False)
    odd = [known | {"kid": "brainpool", "crv": "BP-256"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, "no object"]
    file = tmp_path / "jwks.json"
    file.write_bytes(orjson.dumps({"keys": [*odd, known]}))
    principal, _ = verified(Jwt(issuer=ISSUER, audience=AUDIENCE, jwks=str(file)), token())
    assert principal.subject == "user:tanaka"


def test_keys_stay_while_the_issuer_is_away_and_without_any_the_answer_is_503(tmp_path: Path) -> None:
    async def story() -> None:
        now_s = 1000.0
        path = jwks_file(tmp_path, SIGNER)
        settings_ = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks=str(path))
        verifier = TokenVerifier(settings_, Jwks(str(path), refresh_s=300, clock=lambda: now_s))
        await verifier.verify(token())
        path.unlink()
        now_s += 1000
        await verifier.verify(token())
        with pytest.raises(Unavailable):
            await TokenVerifier(settings_).verify(token())

    asyncio.run(story())


def test_tokens_and_keys_from_a_url_pass_the_gateway_and_no_other_url_is_asked(platform: Platform) -> None:
    async def story() -> None:
        document = orjson.dumps(KeySet([SIGNER]).as_dict(private=False))
        id_provider = Service(answers(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(document) + document))
        service = Service()
        issuer = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": f"{id_provider.url}/jwks"}
        async with running(service, id_provider), door(settings(platform, service, jwt=issuer)) as gateway:
            for _ in range(3):
                assert (await gateway.ask("GET", "/v1/sop/x", key=token())).status == 200
            assert (await gateway.ask("GET", "/v1/keys", key=token())).status == 403
            assert (await gateway.ask("GET", "/v1/sop/x", key=token(OTHER))).status == 401
            assert [request.line for request in id_provider.requests] == ["GET /jwks HTTP/1.1"]

    asyncio.run(story())


def test_without_an_issuer_tokens_are_refused(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            assert (await gateway.ask("GET", "/v1/sop/x", key=token())).status == 401
            assert (await gateway.ask("GET", "/v1/sop/x", headers={"Authorization": "Basic YTpi"})).status == 401

    asyncio.run(story())
