#!/usr/bin/env python3
"""Do the units notice? Changes one operator or bound at a time and runs the units that execute it; what no test notices is printed to be looked at.

usage: tests/mutate.py [--n 20] [--seed 1] [--minutes M] [--paths common coordinator] [--share I/N] [--out FILE.json]
       tests/mutate.py --uncovered [--paths common/kv]

What is drawn. A mutant is drawn evenly among all places in .c files where one of RULES applies: a comparison loosened, tightened or turned
round, `&&` and `||` exchanged, a `!` dropped, `true` and `false` exchanged, 1 added to or taken from, a number changed. No place is drawn in
what has no effect to see: comments, strings, preprocessor lines, and what stands between the brackets of SILENT calls (the words of a log line
or of an error, an assertion). The condition before such a call is drawn like any other, tables of numbers too, and so is code that no unit runs.

How it is tried. The working tree is copied to build/mutants/tree and built twice: `covered` by gcov's counters, `plain` as shared libraries, so
that a mutant costs one compile and one link. Each unit program runs once in both: it must pass, and it says which lines it executes. That map is
kept; later calls run again only the programs that were linked anew. A mutant on a line that no program executes is missed without a build. Else
the programs that execute its line run, the nearest and quickest first, until one fails. A failure counts if it shows twice, a program
that runs ten times as long as before (and 20 s) fails. It is also noticed if the compiler refuses it, which is counted apart.
Ends with 0 if at least --want of them (0.9) were noticed. With many cores, give each of N copies of the tree its --share of the same sample.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "mutants"
TREE, PLAIN, COVERED, MAP = (HOME / name for name in ("tree", "plain", "covered", "map.json"))
JOBS = 2  # tests and compilers at a time; main() may say otherwise
MEMORY = 24 << 30  # bytes of addresses of one program: a mutant may allocate for ever

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
SILENT = re.compile(r"\b(log_(?:debug|info|warn|error|fatal|event)\w*|assert|static_assert|_Static_assert|error_set|error_prefix)\(")
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|/\*.*?\*/|//[^\n]*|^[ \t]*#(?:[^\n\\]|\\.)*', re.DOTALL | re.MULTILINE)

# A test that ends by a signal (an assertion's abort) still says what it executed.
FLUSH = """#include <signal.h>
extern void __gcov_dump(void);
static void on_signal(int s) { signal(s, SIG_DFL); __gcov_dump(); raise(s); }
__attribute__((constructor)) static void watch(void) { signal(SIGABRT, on_signal); signal(SIGSEGV, on_signal); }
"""


# -- the places

def blank(text):
    return re.sub(r"[^\n]", " ", text)


def live_text(text):
    """The file with all that is not drawn from made blank, character for character."""
    text = TEXT.sub(lambda m: blank(m.group()), text)
    for m in SILENT.finditer(text):
        depth, end = 1, m.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        text = text[: m.end()] + blank(text[m.end() : end]) + text[end:]
    return text


def all_places(paths):
    """(file, line number from 1, start, end, replacement) of all that may be changed."""
    found = []
    for p in paths:
        for file in [TREE / p] if p.endswith(".c") else sorted((TREE / p).rglob("*.c")):
            for i, line in enumerate(live_text(file.read_text()).splitlines()):
                for pattern, to in RULES if line.startswith(" ") else []:
                    for m in re.finditer(pattern, line):
                        found.append((str(file.relative_to(TREE)), i + 1, m.start(), m.end(), to(m) if callable(to) else to))
    return found


# -- the copy, its two builds, and the map of what executes what

RUNNING = set()  # process groups, ended at once when a mutant is noticed


def run(args, cwd=TREE, timeout=None, env=None):
    """(status, output); all that it started is ended with it."""
    p = subprocess.Popen(args, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         start_new_session=True, env={**os.environ, **(env or {})})
    RUNNING.add(p.pid)
    try:
        text = p.communicate(timeout=timeout)[0]
        return p.returncode, text
    except subprocess.TimeoutExpired:
        return 124, ""
    finally:
        RUNNING.discard(p.pid)
        end_group(p.pid)
        p.wait()


def end_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def must(args, what):
    rc, text = run(args, cwd=ROOT)
    if rc:
        sys.exit(f"{what}:\n{text[-3000:]}")


def copy_tree():
    """Brings the copy up to date; files that did not change keep their times, so that little is built again."""
    TREE.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    names = {n for n in listed.split("\0") if n and (ROOT / n).is_file()}
    for name in names:
        to, data = TREE / name, (ROOT / name).read_bytes()
        if not to.is_file() or to.read_bytes() != data:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(data)
            shutil.copymode(ROOT / name, to)
    for folder, _, files in os.walk(TREE):
        for old in (pathlib.Path(folder) / f for f in files):
            if str(old.relative_to(TREE)) not in names:
                old.unlink()
    for name in ("models", ".venv"):
        if (ROOT / name).exists() and not (TREE / name).is_symlink():
            (TREE / name).symlink_to((ROOT / name).resolve())


def build_both():
    """The names of the unit programs."""
    flush = HOME / "flush.o"
    subprocess.run(["cc", "-fPIC", "-x", "c", "-c", "-", "-o", flush], input=FLUSH, text=True, check=True)
    common = ["cmake", "-S", TREE, "-G", "Ninja", "-DCMAKE_POSITION_INDEPENDENT_CODE=ON"]
    must([*common, "-B", COVERED, "-DCMAKE_BUILD_TYPE=Covered", "-DCMAKE_C_FLAGS_COVERED=-O1 --coverage",
          f"-DCMAKE_EXE_LINKER_FLAGS=--coverage {flush}"], "cmake of the covered build")
    must([*common, "-B", PLAIN, "-DCMAKE_BUILD_TYPE=Plain", "-DCMAKE_C_FLAGS_PLAIN=-O2", "-DBUILD_SHARED_LIBS=ON",
          "-DCMAKE_LINK_DEPENDS_NO_SHARED=ON"], "cmake of the plain build")
    names = sorted(f"test_{f.parent.name}_{f.stem}" for f in (TREE / "tests/unit").glob("*/*.c"))
    for folder in (COVERED, PLAIN):
        must(["ninja", "-C", folder, "--quiet", f"-j{JOBS}", *names], "the unchanged tree does not build")
    return names


def run_program(name, folder=PLAIN, timeout=600, env=None):
    return run(["prlimit", f"--as={MEMORY}", folder / "bin" / name, "--fail-fast", "--verbose=1"], timeout=timeout, env=env)


def gcov(counters):
    """(lines executed, lines there are, functions) of each .c file, of the counters in a folder."""
    executed, lines, functions = {}, {}, {}
    found = [f for f in counters.rglob("*.gcda") if "/baton_" in str(f)]
    for f in found:
        note = COVERED.anchor / f.relative_to(counters).with_suffix(".gcno")
        f.with_suffix(".gcno").symlink_to(note)
    if not found:  # all that it tests stands in headers
        return executed, lines, functions
    text = subprocess.run(["gcov", "--json-format", "--stdout", *found], cwd=COVERED, check=True, stdout=subprocess.PIPE, text=True).stdout
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        unit, end = decoder.raw_decode(text)
        text = text[end:]
        for f in unit["files"]:
            path = pathlib.Path(os.path.normpath(COVERED / f["file"]))
            if path.suffix == ".c" and path.is_relative_to(TREE):
                path = str(path.relative_to(TREE))
                executed.setdefault(path, set()).update(at["line_number"] for at in f["lines"] if at["count"])
                lines.setdefault(path, set()).update(at["line_number"] for at in f["lines"])
                functions[path] = sorted([fn["start_line"], fn["end_line"], fn["name"]] for fn in f["functions"])
    return executed, lines, functions


def measure(name):
    """What a program executes and how long it runs; ends everything if it fails."""
    began = time.monotonic()
    rc, text = run_program(name)
    seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        if not rc:
            rc, text = run_program(name, COVERED, env={"GCOV_PREFIX": folder})
        if rc:
            return name, None, text
        return name, seconds, gcov(pathlib.Path(folder))


def make_map(names):
    """{"programs": {name: stamp, seconds, lines executed}, "files": {path: lines, functions}}; only what was linked anew is run."""
    known = json.loads(MAP.read_text()) if MAP.exists() else {"programs": {}, "files": {}}
    stamps = {n: (COVERED / "bin" / n).stat().st_mtime_ns for n in names}
    programs = {n: p for n, p in known["programs"].items() if stamps.get(n) == p["stamp"]}
    stale = [n for n in names if n not in programs]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for i, done in enumerate(concurrent.futures.as_completed([pool.submit(measure, n) for n in stale])):
            name, seconds, what = done.result()
            if seconds is None:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{name} fails in the unchanged tree:\n{what[-3000:]}")
            executed, lines, functions = what
            programs[name] = {"stamp": stamps[name], "seconds": seconds, "lines": {f: sorted(at) for f, at in executed.items() if at}}
            for f in lines:
                known["files"][f] = {"lines": sorted(lines[f]), "functions": functions[f]}
            if i % 20 == 19 or i + 1 == len(stale):
                print(f"{i + 1} of {len(stale)} programs measured", flush=True)
    known["programs"] = programs
    known["files"] = {f: at for f, at in known["files"].items() if (TREE / f).exists()}
    MAP.write_text(json.dumps(known))
    return known


def function_of(known, path, line):
    for start, end, _ in known["files"].get(path, {"functions": []})["functions"]:
        if start <= line <= end:
            return start, end
    return None


def who_executes(known, path, line):
    """The programs to run for a line, the nearest and quickest first. A line without code of its own (a table's row) stands for its function or file."""
    file = known["files"].get(path, {"lines": [], "functions": []})
    start, end = (line, line) if line in file["lines"] else function_of(known, path, line) or (0, 1 << 30)
    if file["lines"] or file["functions"]:
        names = [n for n, p in known["programs"].items() if any(start <= at <= end for at in p["lines"].get(path, []))]
    else:  # nothing but tables, or no program links it
        names = [n for n in known["programs"] if is_table(path)]
    return sorted(names, key=lambda n: known["programs"][n]["seconds"] * distance(n, path))


def distance(name, path):
    """How far a program's tests are from a file: another folder's find less, the file's own most."""
    _, folder, what = name.split("_", 2)
    parts = pathlib.PurePath(path).parts
    if folder != (parts[1] if parts[0] == "common" else parts[0]):
        return 8
    stem = pathlib.PurePath(path).stem
    return 0.2 if what in stem or stem in what else 1


def is_table(path):
    """Whether a file has no function of its own."""
    return not re.search(r"^\{", (TREE / path).read_text(), re.MULTILINE)


def print_uncovered(known, paths):
    rows = []
    for p in paths:
        for file in [TREE / p] if p.endswith(".c") else sorted((TREE / p).rglob("*.c")):
            path = str(file.relative_to(TREE))
            at = known["files"].get(path)
            if not at:
                if not is_table(path):
                    rows.append((len(file.read_text().splitlines()), path, ["no unit program links it"]))
                continue
            seen = {line for p in known["programs"].values() for line in p["lines"].get(path, [])}
            missing = [line for line in at["lines"] if line not in seen]
            say = []
            for start, end, name in at["functions"]:
                here = [line for line in missing if start <= line <= end]
                if here:
                    say.append(f"{name}(): {'all of it' if start in here else ', '.join(map(str, here))}")
            if missing:
                rows.append((len(missing), path, say))
    for n, path, say in sorted(rows, reverse=True):
        print(f"{n:4d}  {path}")
        for s in say:
            print(f"        {s}")


# -- a mutant

def first_failure(known, names):
    """The program that fails, twice; None if all pass."""
    stop = threading.Event()

    def fails(name):
        timeout = 20 + 10 * known["programs"][name]["seconds"]
        return not stop.is_set() and run_program(name, timeout=timeout)[0] and not stop.is_set() and run_program(name, timeout=timeout)[0]

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        waiting = {pool.submit(fails, n): n for n in names}
        for done in concurrent.futures.as_completed(waiting):
            if done.result():
                stop.set()
                for pid in list(RUNNING):
                    end_group(pid)
                return waiting[done]
    return None


def try_mutant(known, names, path, line, start, end, to):
    """(how it was noticed or None, the programs that ran)."""
    programs = who_executes(known, path, line)
    if not programs:
        return None, []
    file = TREE / path
    before = file.read_text()
    lines = before.splitlines(keepends=True)
    lines[line - 1] = lines[line - 1][:start] + to + lines[line - 1][end:]
    file.write_text("".join(lines))
    try:
        if run(["ninja", "-C", PLAIN, "--quiet", f"-j{JOBS}", *names])[0]:
            return "compiler", []
        return first_failure(known, programs), programs
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
    ap.add_argument("--out", help="JSON file")
    ap.add_argument("--jobs", type=int, default=JOBS, help="tests and compilers at a time")
    ap.add_argument("--uncovered", action="store_true", help="print the lines that no unit executes, and try nothing")
    a = ap.parse_args()
    globals()["JOBS"] = a.jobs
    share, shares = map(int, a.share.split("/"))
    copy_tree()
    names = build_both()
    known = make_map(names)
    if a.uncovered:
        return print_uncovered(known, a.paths)
    began, rows = time.monotonic(), []
    found = all_places(a.paths)
    print(f"{len(found)} places; the unchanged tree passes", flush=True)
    for path, line, start, end, to in random.Random(a.seed).sample(found, min(a.n, len(found)))[share::shares]:
        if time.monotonic() - began > 60 * a.minutes:
            break
        text = (TREE / path).read_text().splitlines()[line - 1]
        t0 = time.monotonic()
        how, programs = try_mutant(known, names, path, line, start, end, to)
        changed = (text[:start] + to + text[end:]).strip()
        rows.append({"file": f"{path}:{line}", "was": text.strip(), "became": changed, "noticed": how, "executed_by": programs})
        say = f"noticed by {how}" if how else "MISSED" if programs else "MISSED, not run"
        print(f"{say:32s} {time.monotonic() - t0:5.0f} s  {path}:{line}: {changed}", flush=True)
    for r in rows:
        if not r["noticed"]:
            print(f"\n{r['file']}  {'run by ' + ', '.join(r['executed_by'][:6]) if r['executed_by'] else 'no unit executes it'}\n  - {r['was']}\n  + {r['became']}")
    n_noticed = sum(r["noticed"] is not None for r in rows)
    print(f"\n{n_noticed} of {len(rows)} noticed, {sum(r['noticed'] == 'compiler' for r in rows)} of them by the compiler (seed {a.seed})")
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps({"seed": a.seed, "noticed": n_noticed, "of": len(rows), "mutants": rows}, indent=1))
    return 0 if rows and n_noticed >= a.want * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
