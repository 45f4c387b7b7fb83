"""Mail by a server of aiosmtpd: put off once, taken the next time, read by Python's own parser, and its link is good.

usage: mail.py serve FILE          writes its port into FILE, and each letter as a line of JSON into FILE.letters
       mail.py check FILE BASE_URL EMAIL
"""

import asyncio
import json
import re
import sys
import time
from email import message_from_bytes, policy
from pathlib import Path

kept = Path(sys.argv[2] + ".letters")


class Greylisting:
    """Takes nobody's first letter (RFC 6647), and everything after it."""

    def __init__(self):
        self.known = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address not in self.known:
            self.known.add(address)
            return "451 4.7.1 Try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        letter = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "content": envelope.content.decode()}
        with kept.open("a") as file:
            file.write(json.dumps(letter) + "\n")
        return "250 2.0.0 Taken"


def letters():
    """Each with its envelope, as it was sent."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    kept_so_far = [json.loads(line) for line in lines]
    return [(it, message_from_bytes(it["content"].encode(), policy=policy.default)) for it in kept_so_far]


def serve():
    from aiosmtpd.smtp import SMTP

    async def forever():
        handler = Greylisting()
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(handler), "127.0.0.1", 0)
        Path(sys.argv[2]).write_text(str(server.sockets[0].getsockname()[1]))
        await server.serve_forever()

    kept.unlink(missing_ok=True)
    asyncio.run(forever())


def check(base, address):
    import requests

    answer = requests.post(f"{base}/password-resets", json={"email": address}, timeout=10)
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 60
    while not (found := [it for it in letters() if "/reset-password?" in it[1].get_body(("plain",)).get_content()]):
        assert time.monotonic() < deadline, "no letter came"
        time.sleep(0.1)
    envelope, letter = found[0]
    assert envelope["to"] == [address] and envelope["from"] == "no-reply@cloud.example", envelope
    assert not letter.defects and letter["To"] == address, (letter.defects, letter["To"])
    assert letter["From"].addresses[0].addr_spec == "no-reply@cloud.example"
    for header in ("Date", "Message-ID", "Subject", "MIME-Version"):
        assert letter[header], header
    # Automatic letters say so (RFC 3834), or they are answered by other programs.
    assert letter["Auto-Submitted"] == "auto-generated", letter.items()
    assert all(len(line) <= 998 for line in envelope["content"].split("\r\n"))
    plain, page = letter.get_body(("plain",)), letter.get_body(("html",))
    assert not any(part.defects for part in letter.walk())
    link = re.search(r"https?://\S+", plain.get_content())[0]
    assert link in page.get_content().replace("&amp;", "&"), "the page has the same link"
    changed = {"token": link.split("token=")[1], "password": "another sentence that nobody guesses"}
    for expected in (204, 410):
        answer = requests.post(f"{base}/password-resets/complete", json=changed, timeout=10)
        assert answer.status_code == expected, (link, answer.text)
    print("aiosmtpd put a letter off, took it the next time, and its link was good once")


if sys.argv[1] == "serve":
    serve()
else:
    check(*sys.argv[3:])
