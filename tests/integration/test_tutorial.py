"""docs/tutorial.md does what it says: its commands run as they stand, and print what stands below them."""
import os
import re
import signal
import socket
import subprocess

import pytest
from cluster import BIN, ROOT, SANITIZED

TUTORIAL = ROOT / "docs" / "tutorial.md"
MARK = "@@ end of block"


def blocks():
    """(commands, [expected lines]) of each ```sh block; a ```text block belongs to the commands above it."""
    found = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S):
        if kind == "sh":
            found.append((text, []))
        else:
            found[-1][1].extend(line for line in text.splitlines() if line.strip())
    return found


def pattern(line):
    """Any number for a number, anything for `...`, any blanks for blanks."""
    parts = re.split(r"(\.\.\.|\d+(?:\.\d+)?|\s+)", line.strip())
    as_any = {"...": ".*"}
    return "".join(as_any.get(p) or (r"\s+" if p.isspace() else r"[\d.]+" if p[0].isdigit() else re.escape(p)) for p in parts if p)


def free_ports(n):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def run(script):
    """The whole tutorial in one shell, as its reader types it; what it leaves behind is killed."""
    shell = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        return shell.communicate(timeout=240)[0], shell.returncode
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        pytest.fail("the tutorial takes too long\n" + shell.communicate()[0][-3000:])
    finally:
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def missing(expected, output):
    """The first expected line that is nowhere in the output, in any order; None: all are."""
    return next((line for line in expected if not re.search(pattern(line), output)), None)


@pytest.mark.skipif(SANITIZED, reason="the reader's first hour is not a sanitizer's")
def test_every_command_prints_what_the_page_says():
    all_blocks = blocks()
    assert len(all_blocks) >= 10 and sum(len(lines) for _, lines in all_blocks) >= 20
    script = f"\necho; echo {MARK}\n".join(commands for commands, _ in all_blocks)
    http, control = free_ports(2)
    script = script.replace("8080", str(http)).replace("9090", str(control)).replace("build/bin/", f"{BIN}/")
    output, code = run(script)
    assert code == 0, output[-3000:]
    outputs = output.split(MARK + "\n")
    assert len(outputs) == len(all_blocks)
    for (commands, expected), got in zip(all_blocks, outputs):
        line = missing(expected, got)
        assert line is None, f"after\n{commands}\nno line like\n{line}\nin\n{got}"
