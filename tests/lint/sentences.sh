#!/usr/bin/env bash
# Docs are for people: no sentence over 35 words.  Code, tables and headings do not count; `code` and a link's text do, code as one word.
# usage: tests/lint/sentences.sh [WORDS [FILE...]]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec /usr/bin/python3 - "$@" <<'PY'
import re, subprocess, sys

LIMIT = int(sys.argv[1]) if len(sys.argv) > 1 else 35
# Records, one line a decision or plan: they are written to be searched, not to be read from top to bottom.
RECORDS = {"docs/decisions.md", "docs/roadmap.md"}


def paragraphs(text):
    """(line number, text) of each paragraph, item of a list or quote."""
    lines, start, fenced, in_list, blank = [], 0, False, False, True
    for number, line in enumerate(text.splitlines() + [""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        bare = line.strip()
        code = fenced or (line.startswith("    ") and blank and not in_list)
        item = re.match(r"\s*([-*]|\d+\.) ", line)
        ends = not bare or code or item or bare.startswith(("|", "#", "<!--", "!["))
        if ends and lines:
            yield start, " ".join(lines)
            lines = []
        if bare and not code and not bare.startswith(("|", "#", "<!--", "![")):
            if not lines:
                start = number
            lines.append(re.sub(r"^([-*]|\d+\.) ", "", bare))
        in_list = bool(item) or (in_list and (not bare or line.startswith(" ")))
        blank = not bare or (code and not fenced)


def sentences(text):
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.split(r"(?<=[.!?])[\"')*]*\s+", text)


def words(sentence):
    return len(re.findall(r"[^\s]*\w[^\s]*", sentence))


files = sys.argv[2:] or subprocess.run(["git", "ls-files", "*.md"], capture_output=True,
                                       text=True, check=True).stdout.split()
bad = 0
for name in files:
    if name in RECORDS:
        continue
    with open(name, encoding="utf-8") as f:
        for number, text in paragraphs(f.read()):
            for s in sentences(text):
                if words(s) > LIMIT:
                    bad += 1
                    print(f"{name}:{number}: {words(s)} words ({LIMIT} is the ceiling): {s[:60]}...")
sys.exit(bad > 0)
PY
