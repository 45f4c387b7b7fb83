"""Whether every path of the API that is written in the guides and in the document itself is one that there is.

usage: paths.py DOCUMENT FILE...     the OpenAPI document, and texts in Markdown
"""

import json
import re
import sys

METHODS = "GET|POST|PUT|PATCH|DELETE"

document = json.load(open(sys.argv[1]))
known = {}
for path, operations in document["paths"].items():
    for method in operations:
        known.setdefault(method.upper(), []).append(path.strip("/").split("/"))
# Pages, and what RFCs say: routes that are no operations.
OTHERS = ("/docs", "/openapi.json", "/inspector", "/inspect/", "/oauth/", "/.well-known/", "/account/", "/metrics", "/health")


def fits(written, template):
    """Names of variables and of shells stand for ids; `…` for what is in front of it elsewhere."""
    here = written.strip("/").split("/")
    varies = lambda part: "{" in part or "$" in part or part in ("…", "<id>") or "_0" in part
    return len(here) == len(template) and all(
        there == part or there.startswith("{") or varies(part) for part, there in zip(here, template)
    )


def exists(method, path):
    if path == "/" or path.startswith(OTHERS):
        return True
    methods = [method] if method else list(known)
    return any(fits(path, template) for each in methods for template in known.get(each, []))


def written(text):
    """Methods and paths, as far as they are written together."""
    for method, path in re.findall(rf"`({METHODS}) (/[^\s`?]*)", text):
        yield method, path
    # Commands: what the shell works out becomes one word first.
    for line in text.splitlines():
        line = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)", "$x", line)
        for path in re.findall(r'\$GANTRY_URL(/[^\s"?\'|)]*)', line) + re.findall(r'\bapi "?(/[^\s"?\'|)]*)', line):
            yield None, path


wrong = []
for name in sys.argv[1:]:
    text = open(name).read()
    for number, line in enumerate(text.splitlines(), 1):
        for method, path in written(line):
            if not exists(method, path.rstrip("/.,;:")):
                wrong.append(f"{name}:{number}: there is no {method or 'operation'} {path}")
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(1 if wrong else 0)
