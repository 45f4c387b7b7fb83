"""A passkey of soft-webauthn: enrolled, a second step, enough by itself, and refused where it should be.

usage: passkey.py BASE_URL ORIGIN EMAIL PASSWORD
"""

import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode

import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.utils import sha256
from soft_webauthn import SoftWebauthnDevice

base, origin, email, password = sys.argv[1:]

VERIFIED = 0x04  # the authenticator says that it verified who he is


class Verifying(SoftWebauthnDevice):
    """One that asks for a PIN: soft-webauthn's says of itself that it does not."""

    def create(self, options, at):
        made = super().create(options, at)
        attestation = cbor.decode(made["response"]["attestationObject"])
        attestation["authData"] = marked(attestation["authData"])
        made["response"]["attestationObject"] = cbor.encode(attestation)
        return made

    def get(self, options, at):
        shown = super().get(options, at)
        response = shown["response"]
        response["authenticatorData"] = marked(response["authenticatorData"])
        signed = response["authenticatorData"] + sha256(response["clientDataJSON"])
        response["signature"] = self.private_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return shown


def marked(data):
    return data[:32] + bytes([data[32] | VERIFIED]) + data[33:]


def decoded(options):
    """Options as browsers parse them: what is base64url is bytes."""
    text = lambda value: urlsafe_b64decode(value + "=" * (-len(value) % 4))
    options = dict(options, challenge=text(options["challenge"]))
    if "user" in options:
        options["user"] = dict(options["user"], id=text(options["user"]["id"]))
        # It knows no other words for them.
        options.pop("attestation", None)
    return {"publicKey": options}


def encoded(value):
    """What an authenticator answers as `toJSON()` writes it."""
    if isinstance(value, bytes):
        return urlsafe_b64encode(value).decode().rstrip("=")
    if isinstance(value, dict):
        return {name: encoded(member) for name, member in value.items() if member is not None}
    return value


def credential(made):
    made = encoded(made)
    return dict(made, id=made["rawId"], clientExtensionResults={})


def post(path, body, token=None, status=201):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.post(base + path, json=body, headers=headers)
    assert answer.status_code == status, (path, answer.status_code, answer.text)
    return answer.json()


def sign_in(status=201):
    return post("/sessions", {"email": email, "password": password, "kind": "program"}, status=status)


token = sign_in()["access_token"]


def enrol(device, status):
    options = post("/me/passkey-challenges", {"purpose": "register"}, token)["public_key"]
    body = {"name": type(device).__name__, "credential": credential(device.create(decoded(options), origin))}
    return post("/me/factors/passkeys", body, token, status)


refused = enrol(SoftWebauthnDevice(), 401)
assert refused["code"] == "wrong_factor", refused
device = Verifying()
confirmed = enrol(device, 201)
assert confirmed["factor"]["kind"] == "passkey" and len(confirmed["recovery_codes"]) == 10, confirmed

# Half of it, beside the password.
step = sign_in(202)["second_step"]
shown = credential(device.get(decoded(step["passkey"]["public_key"]), origin))
proof = {"token": step["token"], "factor": {"method": "passkey", "credential": shown}}
opened = post("/sessions/second-step", proof)
assert opened["session"]["acr"] == "urn:gantry:aal2", opened

# All of it, by itself; and once.
options = post("/sessions/passkey-challenges", {})["public_key"]
shown = credential(device.get(decoded(options), origin))
opened = post("/sessions/passkey", {"kind": "program", "credential": shown})
me = requests.get(base + "/me", headers={"Authorization": f"Bearer {opened['access_token']}"}).json()
assert me["person"]["email"] == email, me
assert post("/sessions/passkey", {"kind": "program", "credential": shown}, status=401)["code"] == "wrong_factor"

# For another site's page it signs something else.
options = post("/sessions/passkey-challenges", {})["public_key"]
shown = credential(device.get(decoded(options), "https://evil.example"))
assert post("/sessions/passkey", {"kind": "program", "credential": shown}, status=401)["code"] == "wrong_factor"
print("soft-webauthn: enrolled, a second step, enough by itself, once, and for no other page")
