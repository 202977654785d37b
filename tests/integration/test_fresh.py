"""tests/fresh.sh where it may not make a machine: it says what is not permitted and fails, it does not skip."""
import os
import subprocess

import pytest
from cluster import ROOT

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def without(capability):
    return ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]


def tool(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def can(*command):
    return subprocess.run(command, capture_output=True).returncode == 0


def fresh(tmp_path, wrapper, path=None):
    """Its exit status and what it says, with a debootstrap that would fail if it ever came to that."""
    if wrapper and not can(*wrapper, "true"):
        pytest.skip(f"not permitted here: {' '.join(wrapper)}")
    if not path:
        tool(tmp_path, "debootstrap", "echo debootstrap was reached; exit 1")
        path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([*wrapper, "tests/fresh.sh"], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PATH": path})
    return done.returncode, done.stdout + done.stderr


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone comes so far")


def test_without_root(tmp_path):
    code, said = fresh(tmp_path, NOBODY if os.geteuid() == 0 else [])
    assert code == 1 and said == "error: fresh: this needs root: debootstrap and chroot are root's\n"


@as_root
def test_without_debootstrap(tmp_path):
    for name in ("bash", "dirname", "id", "unshare", "mount", "chroot"):
        (tmp_path / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    code, said = fresh(tmp_path, [], path=str(tmp_path))
    assert code == 1 and said == "error: fresh: there is no debootstrap: deploy/install-deps.sh --all installs it\n"


@as_root
@pytest.mark.parametrize("capability,what", [("sys_admin", "mounts are"), ("sys_chroot", "chroot is")])
def test_without_a_right(tmp_path, capability, what):
    if capability == "sys_chroot" and not can("unshare", "--mount", "mount", "--bind", "/proc", "/proc"):
        pytest.skip("mounts are not permitted here, which is said first")
    code, said = fresh(tmp_path, without(capability))
    assert code == 1 and said.startswith(f"error: fresh: {what} not permitted here") and said.count("\n") == 1


@as_root
def test_where_mounts_can_be_unshared_and_not_bound(tmp_path):
    if not can("unshare", "--mount", "true"):
        pytest.skip("mounts cannot be unshared here either, which is said first")
    tool(tmp_path, "mount", "echo mount: permission denied >&2; exit 32")
    code, said = fresh(tmp_path, [])
    assert code == 1 and said == "error: fresh: bind mounts are not permitted here: a fresh machine cannot be tried\n"
