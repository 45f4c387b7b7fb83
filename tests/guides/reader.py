"""Reads guides as a reader who does everything they say, and compares what is printed with what they say is printed.

usage: reader.py DIRECTORY GUIDE.md ...     DIRECTORY is where the reader sits; GANTRY_ENV names the platform's dev.env

A fenced block is one of these, and nothing else:
  ```sh                   run in the reader's shell, which lives as long as the guide; it must succeed
  ```sh second shell      run in a shell of its own, and left running until the next one or the guide's end
  ```json (text, http)    what the block before printed: … stands for anything in a line, and alone for any lines
  ```text second shell    what the second shell has printed by now, or soon will have
  ```python receiver.py   a file the reader saves under this name
  ```sh example           shown only
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

PATIENCE = 120  # seconds until a second shell has printed what it should: it may have to compile first
PORT = "9000"  # where the guides receive; here, a port nobody has
OUTPUT = {"json", "text", "http"}


class Wrong(Exception):
    """The guide does not say what happens."""


def blocks(guide):
    """Language, what the rest of the fence says, the text, and the line of each block."""
    inside = None
    for number, line in enumerate(guide.read_text().splitlines(), 1):
        if inside is None and (fence := re.fullmatch(r"```(\w+)(?: (.+))?", line)):
            inside = [fence[1], fence[2] or "", [], number]
        elif line.startswith("```"):
            if inside is None:
                raise Wrong(f"{guide}:{number}: a block without a language")
            yield inside[0], inside[1], "\n".join(inside[2]) + "\n", inside[3]
            inside = None
        elif inside:
            inside[2].append(line)


def pattern(expected):
    """What the expected output matches."""
    lines = []
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            lines.append(r"[^\n]*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"\n")
    return "".join(lines)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def tidy(output):
    return "".join(line.rstrip() + "\n" for line in output.replace("\r", "").rstrip("\n").split("\n"))


class Reader:
    """A shell in a directory, and perhaps a second one."""

    def __init__(self, directory):
        self.directory = directory
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.second = None
        self.seen = 0
        self.printed = None

    def run(self, text):
        """Runs a block in the first shell; a command that fails is an error."""
        (self.directory / ".block").write_text(text)
        # Not `set -e`: the shell is to live on, as a reader's does.
        say = "set -E; failed=; trap 'failed=$BASH_COMMAND' ERR; . ./.block >.printed 2>&1 </dev/null; trap - ERR; echo \"done $failed\"\n"
        self.shell.stdin.write(say)
        self.shell.stdin.flush()
        answer = self.shell.stdout.readline()
        self.printed = tidy((self.directory / ".printed").read_text())
        if answer != "done \n":
            raise Wrong(f"failed: {answer.removeprefix('done ').strip() or 'the shell is gone'}\n{self.printed}")

    def run_aside(self, text):
        """Runs a block in a new second shell."""
        self.end_second()
        with open(self.directory / ".second", "w") as output:
            self.second = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-ec", text], cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.seen = 0

    def expect(self, expected):
        if not re.fullmatch(pattern(expected), self.printed or "\n"):
            raise Wrong(f"printed:\n{self.printed}\nexpected:\n{expected}")

    def expect_aside(self, expected):
        """Waits until the second shell has printed this behind what was looked at before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            output = (self.directory / ".second").read_text().replace("\r", "")
            if found := re.search(pattern(expected), output[self.seen :]):
                self.seen += found.end()
                return
            if time.monotonic() > deadline:
                raise Wrong(f"the second shell printed:\n{output[self.seen:]}\nexpected:\n{expected}")
            time.sleep(0.05)

    def end_second(self):
        if self.second:
            os.killpg(self.second.pid, signal.SIGTERM)
            self.second.wait()
            self.second = None

    def leave(self):
        self.end_second()
        self.shell.stdin.close()
        self.shell.wait()


def read(guide, directory):
    shutil.rmtree(directory, ignore_errors=True)
    (directory / ".gantry").mkdir(parents=True)
    root = pathlib.Path.cwd()
    shutil.copy(os.environ["GANTRY_ENV"], directory / ".gantry" / "dev.env")
    (directory / ".gantry" / "sdk").symlink_to(root / ".gantry" / "sdk")
    for name in ("scripts", "sdk", "api"):
        (directory / name).symlink_to(root / name)
    reader, port, ran = Reader(directory), free_port(), 0
    try:
        for language, rest, text, line in blocks(guide):
            text = re.sub(rf"\b{PORT}\b", port, text)
            try:
                if rest.startswith("example"):
                    continue
                elif language == "sh" and not rest:
                    reader.run(text)
                elif language == "sh" and rest == "second shell":
                    reader.run_aside(text)
                elif language in OUTPUT and not rest:
                    reader.expect(text)
                elif language in OUTPUT and rest == "second shell":
                    reader.expect_aside(text)
                elif re.fullmatch(r"[\w.-]+", rest):
                    (directory / rest).write_text(text)
                else:
                    raise Wrong(f"no reader knows what to do with a block of {language} {rest}")
                ran += 1
            except Wrong as wrong:
                raise Wrong(f"{guide}:{line}: {wrong}") from None
    finally:
        reader.leave()
    return ran


def main():
    place, *guides = sys.argv[1:]
    wrong = 0
    for guide in map(pathlib.Path, guides):
        started = time.monotonic()
        try:
            ran = read(guide, pathlib.Path(place).absolute() / guide.stem)
            print(f"{guide}: {ran} blocks, {time.monotonic() - started:.1f} s", flush=True)
        except Wrong as error:
            print(error, flush=True)
            wrong += 1
    sys.exit(f"{wrong} of {len(guides)} guides do not say what happens" if wrong else 0)


main()
