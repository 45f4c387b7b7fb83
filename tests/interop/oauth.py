"""A client that authlib makes goes through discovery, a code with PKCE, refresh, introspection and revocation.

usage: oauth.py BASE_URL CLIENT_ID CLIENT_SECRET EMAIL PASSWORD
"""

import json
import os
import sys
import time
import urllib.parse
from html.parser import HTMLParser

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # http:// on the machine itself

import requests
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc import jwt
from joserfc.jwk import KeySet

base, client_id, client_secret, email, password = sys.argv[1:]
callback = "http://127.0.0.1:9999/callback"


class Form(HTMLParser):
    """The first form of a page: where it goes, and what it carries."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields, self.select = None, {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.action = attributes["action"]
        elif tag == "input":
            self.fields[attributes["name"]] = attributes.get("value", "")
        elif tag == "select":
            self.select = attributes["name"]
        elif tag == "option":
            self.fields.setdefault(self.select, attributes["value"])


def browse(url):
    """A browser: signs in where it is asked to, and allows what it is asked; answers where it is sent back to."""
    page = requests.get(url, allow_redirects=False)
    form = Form(page.text)
    assert form.action == "/oauth/sign-in", page.text
    fields = form.fields | {"email": email, "password": password}
    signed_in = requests.post(base + form.action, data=fields, allow_redirects=False)
    assert signed_in.status_code == 303, signed_in.text
    # Browsers take the machine itself for as good as TLS, and this library does not.
    cookie = {"Cookie": signed_in.headers["Set-Cookie"].split(";")[0]}
    page = requests.get(base + signed_in.headers["Location"], headers=cookie, allow_redirects=False)
    if page.status_code == 200:
        assert "See jobs." in page.text, page.text
        form = Form(page.text)
        fields = form.fields | {"decision": "allow"}
        page = requests.post(base + form.action, data=fields, headers=cookie, allow_redirects=False)
    assert page.status_code == 303, page.text
    return page.headers["Location"]


document = requests.get(base + "/.well-known/openid-configuration").text
metadata = json.loads(document)
assert metadata["issuer"] == base
for kind in (OpenIDProviderMetadata, AuthorizationServerMetadata):
    # It wants https://, which is in front of the platform elsewhere; and RS256 in a list, where everything is signed by
    # ES256.
    described = json.loads(document.replace("http://", "https://"))
    described["id_token_signing_alg_values_supported"].append("RS256")
    kind(described).validate()

for method in ("client_secret_basic", "client_secret_post"):
    session = OAuth2Session(
        client_id,
        client_secret,
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        scope="openid email offline_access jobs:read",
        redirect_uri=callback,
        code_challenge_method="S256",
    )
    nonce, verifier = generate_token(), generate_token(48)
    url, state = session.create_authorization_url(
        metadata["authorization_endpoint"], nonce=nonce, code_verifier=verifier
    )
    back = browse(url)
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["iss"] == [base]
    token = session.fetch_token(
        metadata["token_endpoint"], authorization_response=back, state=state, code_verifier=verifier
    )

    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"]).json())
    decoded = jwt.decode(token["id_token"], keys, algorithms=["ES256"])
    claims = CodeIDToken(
        decoded.claims,
        decoded.header,
        {"iss": {"values": [base]}, "aud": {"values": [client_id]}},
        {"nonce": nonce, "client_id": client_id, "access_token": token["access_token"]},
    )
    claims.validate(int(time.time()))
    userinfo = session.get(metadata["userinfo_endpoint"]).json()
    assert userinfo["sub"] == claims["sub"] and userinfo["email"] == email, userinfo
    assert session.get(base + "/jobs").status_code == 200

    before = token["access_token"]
    token = session.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
    assert token["access_token"] != before
    assert session.get(base + "/jobs").status_code == 200

    def introspected(text):
        return session.introspect_token(metadata["introspection_endpoint"], token=text).json()

    described = introspected(token["access_token"])
    assert described["active"] and described["sub"] == claims["sub"], described
    revoked = session.revoke_token(metadata["revocation_endpoint"], token=token["refresh_token"])
    assert revoked.status_code == 200, revoked.text
    assert introspected(token["access_token"]) == {"active": False}
    assert requests.get(base + "/jobs", headers={"Authorization": f"Bearer {token['access_token']}"}).status_code == 401
    print(f"authlib, {method}: discovery, code with PKCE, ID token, userinfo, refresh, introspection, revocation")
