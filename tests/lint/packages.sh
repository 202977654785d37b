#!/usr/bin/env bash
# Every header that a build read belongs to a package that deploy/install-deps.sh lists, or that a listed one depends on:
# what is there only by chance on this machine is missing on a fresh one.  usage: tests/lint/packages.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/../.."
exec /usr/bin/python3 - "${1:?a build folder}" <<'PY'
import os, re, subprocess, sys

build, top = sys.argv[1], os.getcwd()
run = lambda *command: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def closure(listed, needs):
    """The packages of a list with all that they depend on, among those installed."""
    todo, seen = list(listed), set()
    while todo:
        package = todo.pop()
        if package not in seen:
            seen.add(package)
            todo += needs.get(package, [])
    return seen


def installed():
    """For each installed package, and each name that one provides, what it depends on."""
    needs = {}
    for line in run("dpkg-query", "-W", "-f", "${Package}\t${Depends}, ${Pre-Depends}\t${Provides}\n").splitlines():
        package, depends, provides = line.split("\t")
        names = lambda text: [n.split(":")[0] for n in re.findall(r"(?:^|[,|])\s*([^\s,|(]+)", text)]
        needs.setdefault(package, []).extend(names(depends))
        for name in names(provides):
            needs.setdefault(name, []).append(package)
    return needs


def headers():
    """Outside files that objects read: path -> one object, for the programs and for the tests."""
    read, target = {False: {}, True: {}}, None
    for line in run("ninja", "-C", build, "-t", "deps").splitlines():
        if not line.startswith(" "):
            target = line.split(":")[0]
        elif target:
            path = os.path.realpath(os.path.join(build, line.strip()))
            if not path.startswith(top + os.sep):
                read[target.startswith("tests/")].setdefault(path, target)
    return read


def owners(paths):
    """path -> package, by dpkg; a file of a merged /usr may be listed under its old name."""
    found = {}
    for line in run("dpkg", "-S", *sorted({p for x in paths for p in (x, x.removeprefix("/usr"))})).splitlines():
        packages, _, path = line.rpartition(": ")
        for candidate in (path, "/usr" + path):
            found.setdefault(candidate, packages.split(", ")[0].split(":")[0])
    return found


needs, bad, count = installed(), 0, 0
for of_tests, read in headers().items():
    allowed = closure(run("deploy/install-deps.sh", "--list", *(["--tests"] if of_tests else [])).split(), needs)
    owner = owners(read)
    for path, target in sorted(read.items()):
        count += 1
        if owner.get(path) in allowed:
            continue
        bad += 1
        said = f"is of package {owner[path]}, which deploy/install-deps.sh does not bring" if path in owner else "is of no package"
        print(f"{path} {said} ({target} reads it)")
if count == 0:
    sys.exit(f"{build}: ninja knows of no header that it read: build it first")
print(f"packages: {count} headers from outside, {bad} of them from packages that are not listed")
sys.exit(bad > 0)
PY
