#!/usr/bin/env bash
# Installs what building Baton needs from Debian; with --tests also what its tests need, into .venv for Python; with --all
# also what the fuzz targets and tests/fresh.sh need. Does nothing where all is there. Root, or sudo, is needed only when
# something is missing.  --list [--tests|--all] prints the packages and installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { echo "usage: deploy/install-deps.sh [--list] [--tests|--all]" >&2; exit 2; }
list=false tests=false all=false
for arg in "$@"; do
    case $arg in
    --list) list=true ;;
    --tests) tests=true ;;
    --all) tests=true all=true ;;
    *) usage ;;
    esac
done

# What is called otherwise, or not there, from one release to the next: the parser of HTTP comes as C sources or as a library.
# shellcheck disable=SC1091
release=$(. /etc/os-release && echo "$ID-${VERSION_ID:-testing}")
case $release in
debian-12 | ubuntu-24.04) http_parser=node-llhttp ;;
*) http_parser=libllhttp-dev ;;
esac

build=(gcc libc6-dev cmake ninja-build pkg-config "$http_parser" libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libyaml-dev
    libuv1-dev liburing-dev libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libxxhash-dev libcurl4-openssl-dev uthash-dev
    python3 python3-venv python3-pip ca-certificates)
tested=(g++ libcriterion-dev qemu-user curl git haproxy)
others=(clang libclang-rt-dev debootstrap)

wanted=("${build[@]}")
if $tests; then wanted+=("${tested[@]}"); fi
if $all; then wanted+=("${others[@]}"); fi
if $list; then
    printf '%s\n' "${wanted[@]}"
    exit 0
fi
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    case $release in
    debian-12 | debian-13) ;;
    *) echo "note: $release was never tried; packages are asked for by the names in CONTRIBUTING.md" >&2 ;;
    esac
    echo "installing from Debian: ${missing[*]}"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "error: these packages are missing and there is no sudo: ${missing[*]}" >&2; exit 1; }
        sudo=sudo
    fi
    apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" </dev/null; }
    apt update
    apt install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

$tests || exit 0
has_modules() { .venv/bin/python -c 'import jinja2, openai, pytest, pytest_timeout, xdist' && .venv/bin/clang-format --version; }
if ! has_modules >/dev/null 2>&1; then
    echo "installing from PyPI into .venv: $(grep -v '^#' tests/requirements.txt | tr '\n' ' ')"
    /usr/bin/python3 -m venv --clear .venv
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
fi
