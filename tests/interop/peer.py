"""Verifies deliveries (`verify`), or signs some (`sign`), with the Python libraries of others."""

import base64
import datetime
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks import Webhook, WebhookVerificationError


def content(delivery, body):
    return f"{delivery['id']}.{delivery['timestamp']}.{body}".encode()


def believes(delivery, key, body):
    headers = {f"webhook-{name}": delivery[name] for name in ("id", "timestamp", "signature")}
    if key.startswith("whsec_"):
        try:
            # The library reads the body as JSON afterwards, which is not what is tried here.
            Webhook(key).verify(body, headers)
        except WebhookVerificationError:
            return False
        except json.JSONDecodeError:
            return True
        return True
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    for each in delivery["signature"].split(" "):
        version, signature = each.split(",")
        if version == "v1a":
            try:
                public.verify(base64.b64decode(signature), content(delivery, body))
                return True
            except InvalidSignature:
                continue
    return False


def verify():
    count = 0
    for line in sys.stdin:
        delivery = json.loads(line)
        for key in delivery["keys"]:
            assert believes(delivery, key, delivery["body"]), delivery["case"]
            assert not believes(delivery, key, delivery["body"] + " "), delivery["case"] + ", changed"
            count += 1
    assert count > 0, "nothing to verify"
    print(f"Python verifies what we signed: {count} signatures")


def sign():
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    for number, body in enumerate(['{"a":1}', "ünïcödé", ""]):
        delivery = {"id": f"msg_{number}", "timestamp": str(int(now.timestamp())), "body": body}
        secret = "whsec_" + base64.b64encode(bytes([number + 1] * 24)).decode()
        symmetric = Webhook(secret).sign(delivery["id"], now, body)
        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        asymmetric = "v1a," + base64.b64encode(private.sign(content(delivery, body))).decode()
        public = "whpk_" + base64.b64encode(raw).decode()
        print(json.dumps({**delivery, "case": "Python, both", "signature": f"{asymmetric} {symmetric}", "keys": [secret, public]}))


{"verify": verify, "sign": sign}[sys.argv[1]]()
