#!/usr/bin/env bash
# Installs what building Baton needs from Debian; with --tests also what its tests need, into .venv for Python.
# Does nothing where all is there. Root, or sudo, is needed only when something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(gcc cmake ninja-build pkg-config libc6-dev libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libyaml-dev libuv1-dev liburing-dev
    node-llhttp libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libxxhash-dev libcurl4-openssl-dev uthash-dev
    python3 python3-venv python3-pip ca-certificates)
tests=(libcriterion-dev clang-14 libclang-rt-14-dev clang-format-14 curl git haproxy)

wanted=("${build[@]}")
[ "${1:-}" = --tests ] && wanted+=("${tests[@]}")
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing from Debian: ${missing[*]}"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "error: these packages are missing and there is no sudo: ${missing[*]}" >&2; exit 1; }
        sudo=sudo
    fi
    apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" </dev/null; }
    apt update
    apt install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

[ "${1:-}" = --tests ] || exit 0
if ! .venv/bin/python -c 'import openai, pytest, pytest_timeout' 2>/dev/null; then
    echo "installing from PyPI into .venv: $(grep -v '^#' tests/requirements.txt | tr '\n' ' ')"
    /usr/bin/python3 -m venv --clear .venv
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
fi
