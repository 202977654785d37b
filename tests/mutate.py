#!/usr/bin/env python3
"""Do the units notice? Changes one operator or bound at a time, builds, and runs the units; what no test notices is printed to be looked at.

usage: tests/mutate.py [--n 20] [--seed 1] [--minutes M] [--paths common coordinator] [--share I/N] [--tree FOLDER] [--out FILE.json]

Works on a copy of the committed tree in build/mutants (built once), so nothing here is touched; --tree names a copy of your own that is built already.
With many cores, give each of N copies its --share of the same sample. A mutant is drawn among all places in .c files
where a rule applies: a comparison loosened, tightened or turned round, `&&` and `||` exchanged, a `!` dropped, `true` and `false` exchanged, 1 added to
or taken from, a number changed. Comments, strings, preprocessor lines, assertions and calls of log_*() are left alone. The units of the mutated
folder run first, then all others; it is noticed if the build, a test or a time limit fails. Ends with 0 if at least --want of them (0.9) were.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "mutants"
TIMEOUT = 60  # seconds of one test: a mutant may loop for ever
JOBS = 2  # tests at a time; main() may say otherwise

RULES = [  # what is found, what it becomes
    (r"==", "!="), (r"!=", "=="),
    (r"<=", "<"), (r">=", ">"),
    (r"(?<![<\-])<(?![<=])(?= )", "<="), (r"(?<![>\-])>(?![>=])(?= )", ">="),
    (r"&&", "||"), (r"\|\|", "&&"),
    (r"(?<=[(\s])!(?=[a-z(])", ""),
    (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
    (r"(?<= )\+ 1\b", "+ 2"), (r"(?<= )- 1\b", "- 0"),
    (r"(?<= )\+(?= [a-z(])", "-"), (r"(?<=[a-z0-9)] )-(?= [a-z(])", "+"),
    (r"\b(?<![\w.\[])([2-9]|[1-9]\d{1,4})\b(?![\w.])", lambda m: str(int(m.group()) + 1)),
    (r"\+\+", "--"), (r"\bcontinue;", "break;"), (r" \+= ", " -= "),
]
DEAD = re.compile(r"^\s*(#|//|\*|/\*)|\b(log_\w+|assert|static_assert|error_set|error_prefix|snprintf)\(")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|/\*.*?\*/|/\*.*$|//.*$')


def places(path):
    """(line number, start, end, replacement) of all that may be changed in a file."""
    out, in_comment, in_text = [], False, False
    for i, line in enumerate(path.read_text().splitlines()):
        was_comment, in_comment = in_comment, (line.rfind("/*") > line.rfind("*/")) if "/*" in line or "*/" in line else in_comment
        dead = was_comment or in_text or DEAD.search(line)
        if DEAD.search(line) and not was_comment:
            in_text = line.count("(") > line.count(")")  # its arguments go on
        elif in_text:
            in_text = line.count(")") <= line.count("(")
        if dead or not line.startswith(" "):
            continue
        live = STRING.sub(lambda m: " " * len(m.group()), line)
        for pattern, to in RULES:
            for m in re.finditer(pattern, live):
                out.append((i, m.start(), m.end(), to(m) if callable(to) else to))
    return out


def all_places(paths):
    found = []
    for p in paths:
        for f in [COPY / p] if p.endswith(".c") else sorted((COPY / p).rglob("*.c")):
            found += [(f.relative_to(COPY), *at) for at in places(f)]
    return found


def run(args, timeout=None):
    try:
        r = subprocess.run(args, cwd=COPY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        return r.returncode, r.stdout
    except subprocess.TimeoutExpired:
        return 124, ""


def prepare(tree):
    global COPY
    if tree:
        COPY = pathlib.Path(tree).resolve()
        return check_unchanged()
    COPY.mkdir(parents=True, exist_ok=True)
    for old in COPY.iterdir():
        if old.name != "build":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    subprocess.run(f"git archive HEAD | tar x -C {COPY}", cwd=ROOT, shell=True, check=True)
    for name in ("models", ".venv"):
        if (ROOT / name).exists():
            (COPY / name).symlink_to(ROOT / name)
    check_unchanged()


def check_unchanged():
    for args in (["cmake", "--preset", "release"], ["ninja", "-C", "build", "--quiet", f"-j{JOBS}"]):
        rc, text = run(args)
        if rc:
            sys.exit(f"the unchanged tree does not build:\n{text[-2000:]}")
    rc, text = units([])
    if rc:
        sys.exit(f"the unchanged tree fails its units:\n{text[-2000:]}")


def units(more):
    return run(["ctest", "--test-dir", "build", "-LE", "stress|long", "--timeout", str(TIMEOUT), "--stop-on-failure", f"-j{JOBS}", "--no-tests=ignore", *more],
               timeout=20 * TIMEOUT)


def try_mutant(path, line, start, end, to):
    """How it was noticed, or None."""
    file = COPY / path
    before = file.read_text()
    lines = before.splitlines(keepends=True)
    lines[line] = lines[line][:start] + to + lines[line][end:]
    file.write_text("".join(lines))
    folder = path.parts[1] if path.parts[0] == "common" else path.parts[0]
    try:
        if run(["ninja", "-C", "build", "--quiet", f"-j{JOBS}"])[0]:
            return "build"
        if units(["-R", rf"unit\.{folder}\."])[0]:
            return f"unit.{folder}"
        if units(["-E", rf"unit\.{folder}\."])[0]:
            return "other units"
        return None
    finally:
        file.write_text(before)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--n", type=int, default=20)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--minutes", type=float, default=60, help="no new mutant begins after that")
    ap.add_argument("--want", type=float, default=0.9)
    ap.add_argument("--paths", nargs="+", default=["common", "coordinator"], help="folders, or .c files")
    ap.add_argument("--share", default="0/1", help="I/N: of the sample's mutants only those whose number is I modulo N")
    ap.add_argument("--tree", help="a built copy to change instead of build/mutants")
    ap.add_argument("--out", help="JSON file")
    ap.add_argument("--jobs", type=int, default=JOBS, help="tests and compilers at a time")
    a = ap.parse_args()
    globals()["JOBS"] = a.jobs
    share, shares = map(int, a.share.split("/"))
    prepare(a.tree)
    rng, began, rows = random.Random(a.seed), time.monotonic(), []
    found = all_places(a.paths)
    print(f"{len(found)} places; the unchanged tree passes", flush=True)
    for path, line, start, end, to in rng.sample(found, min(a.n, len(found)))[share::shares]:
        if time.monotonic() - began > 60 * a.minutes:
            break
        text = (COPY / path).read_text().splitlines()[line]
        t0 = time.monotonic()
        how = try_mutant(path, line, start, end, to)
        changed = (text[:start] + to + text[end:]).strip()
        rows.append({"file": f"{path}:{line + 1}", "was": text.strip(), "became": changed, "noticed": how})
        print(f"{'noticed by ' + how if how else 'NOT NOTICED':24s} {time.monotonic() - t0:5.0f} s  {path}:{line + 1}: {changed}", flush=True)
    n_noticed = sum(r["noticed"] is not None for r in rows)
    for r in rows:
        if not r["noticed"]:
            print(f"\n{r['file']}\n  - {r['was']}\n  + {r['became']}")
    print(f"\n{n_noticed} of {len(rows)} noticed (seed {a.seed})")
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps({"seed": a.seed, "noticed": n_noticed, "of": len(rows), "mutants": rows}, indent=1))
    return 0 if rows and n_noticed >= a.want * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
