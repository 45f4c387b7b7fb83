"""A license that gantry-api has signed is verified by pyseto, and one that pyseto has signed by gantry-api.

usage: license.py GANTRY_API
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import pyseto
from pyseto import Key

PURPOSE = b"gantry license"
ORGANIZATION = "org_01h455vb4pex5vsknk084sn02q"


def gantry(*arguments, fails=False):
    done = subprocess.run([sys.argv[1], "license", *arguments], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def verified_by_pyseto(public, token):
    return pyseto.decode(Key.from_paserk(public), token, implicit_assertion=PURPOSE)


with tempfile.TemporaryDirectory() as directory:
    secret = pathlib.Path(directory, "secret")
    key_id, public = gantry("keygen", "--secret", str(secret)).splitlines()
    assert Key.from_paserk(public).to_paserk_id() == key_id, "the names of a key differ"
    token = gantry(
        "issue", "--secret", str(secret), "--organization", ORGANIZATION, "--tier", "professional",
        "--feature", "api_access", "--limit", "users=10", "--limit", "servers=unlimited",
        "--expires", "2999-01-01T00:00:00Z",
    )  # fmt: skip

    # Ours, with theirs.
    read = verified_by_pyseto(public, token)
    claims = json.loads(read.payload)
    assert json.loads(read.footer) == {"kid": key_id}
    assert claims["lim"] == {"users": 10, "servers": None} and claims["sub"] == ORGANIZATION
    for wrong in (dict(implicit_assertion=b"another product"), dict()):
        try:
            pyseto.decode(Key.from_paserk(public), token, **wrong)
        except pyseto.VerifyError:
            continue
        raise AssertionError("a token of another product was believed")

    # Theirs, with ours.
    signer = Key.from_paserk(secret.read_text().strip())
    claims["tier"] = "enterprise"
    footer = json.dumps({"kid": key_id}).encode()
    theirs = pyseto.encode(signer, json.dumps(claims).encode(), footer, PURPOSE).decode()
    assert json.loads(gantry("verify", theirs, "--anchor", public))["tier"] == "enterprise"
    other = pyseto.encode(signer, json.dumps(claims).encode(), footer, b"another product").decode()
    gantry("verify", other, "--anchor", public, fails=True)
    gantry("verify", theirs[:-40] + "A" * 40, "--anchor", public, fails=True)

    # Lists of revoked licenses, both ways.
    lists = dict(implicit_assertion=b"gantry license revocations")
    revoked = gantry("revoke-list", "--secret", str(secret), "--sequence", "3", "--license", claims["jti"])
    read = pyseto.decode(Key.from_paserk(public), revoked, **lists)
    named = json.loads(read.payload)
    assert (named["epo"], named["rev"]) == (3, [claims["jti"]]), named
    gantry("verify", revoked, "--anchor", public, fails=True)
    theirs = pathlib.Path(directory, "list")
    theirs.write_bytes(pyseto.encode(signer, read.payload, footer, lists["implicit_assertion"]))
    following = gantry("revoke-list", "--secret", str(secret), "--sequence", "4", "--before", str(theirs))
    assert json.loads(pyseto.decode(Key.from_paserk(public), following, **lists).payload)["rev"] == [claims["jti"]]

    # Statements of what was used that they sign, read by us.
    statement = {
        "ver": 1, "sub": ORGANIZATION, "num": 1, "iat": "2026-01-15T12:00:00Z", "from": "2026-01-14", "thru": "2026-01-15",
        "marks": [{"day": "2026-01-14", "lic": claims["jti"], "lim": "users", "used": 7, "most": 10}],
    }  # fmt: skip
    stated = pathlib.Path(directory, "statement")
    stated.write_bytes(pyseto.encode(signer, json.dumps(statement).encode(), footer, b"gantry usage statement"))
    verified = json.loads(gantry("statement", "verify", "--key", public, str(stated)))
    assert verified["highest"]["users"]["used"] == 7, verified
    gantry("statement", "verify", "--key", public, str(theirs), fails=True)

print("license: ours verify with pyseto, and theirs with ours")
