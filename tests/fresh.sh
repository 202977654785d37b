#!/usr/bin/env bash
# A machine on which nothing was installed: Debian's minimal system in build-fresh/SUITE, with a clean clone of HEAD. There
# deploy/quickstart.sh runs, and then the release stage of the tests and the emulated one.  Needs root, debootstrap, mount and chroot.
#   tests/fresh.sh [--suite bookworm|trixie] [--only quickstart|release] [--keep]
# From this host come its apt sources (another suite is taken from the same mirrors), apt's proxy, pip's configuration, CA
# certificates, resolv.conf, /proc, /sys, /dev and /dev/shm. Packages once fetched are kept in build-fresh/cache.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm only= keep=false
usage() { echo "usage: tests/fresh.sh [--suite bookworm|trixie] [--only quickstart|release] [--keep]" >&2; exit 2; }
fail() { echo "error: fresh: $*" >&2; exit 1; }
args=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=${2:-}; shift 2 || usage ;;
    --only) only=${2:-}; shift 2 || usage ;;
    --keep) keep=true; shift ;;
    *) usage ;;
    esac
done
case $suite in bookworm | trixie) ;; *) usage ;; esac
case $only in '' | quickstart | release) ;; *) usage ;; esac

# In mounts of its own: whatever ends this script, this machine's folders do not stay bound below build-fresh.
if [ -z "${FRESH_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || fail "this needs root: debootstrap and chroot are root's"
    for tool in debootstrap unshare mount chroot; do
        command -v $tool >/dev/null || fail "there is no $tool: deploy/install-deps.sh --all installs it"
    done
    unshare --mount true 2>/dev/null || fail "mounts are not permitted here (unshare --mount): a fresh machine cannot be tried"
    unshare --mount mount --bind /proc /proc 2>/dev/null || fail "bind mounts are not permitted here: a fresh machine cannot be tried"
    chroot / true 2>/dev/null || fail "chroot is not permitted here: a fresh machine cannot be tried"
    FRESH_INSIDE=1 exec unshare --mount --propagation private "$0" "${args[@]}"
fi

folder=$PWD/build-fresh
root=$folder/$suite cache=$folder/cache/$suite
step() { printf '\n== fresh %s: %s (%d s)\n' "$suite" "$1" $SECONDS; }

# Whatever still runs there was started there.
end_processes() {
    local p
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/root" 2>/dev/null)" = "$root" ] && kill -9 "${p#/proc/}" 2>/dev/null
    done
    return 0
}
unbind() {
    local at
    for at in dev/shm dev sys proc; do
        ! mountpoint -q "$root/$at" || umount "$root/$at" 2>/dev/null || umount -l "$root/$at" || return 1
    done
}
clear_root() {
    [ -d "$root" ] || return 0
    unbind || { echo "error: fresh: something is still mounted below $root: it is left there" >&2; return 1; }
    rm -rf --one-file-system "$root"
}
finish() {
    local rc=$?
    trap - EXIT
    end_processes
    if [ $rc != 0 ] && [ -d "$root/baton" ]; then
        echo "error: fresh: failed on $suite (exit $rc)" >&2
    fi
    if [ -d "$root/var/cache/apt/archives" ]; then cp -n "$root"/var/cache/apt/archives/*.deb "$cache/" 2>/dev/null || true; fi
    if $keep; then unbind || true; else clear_root || true; fi
    exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# "MIRROR RELEASE COMPONENT", one a line, of what this host's apt fetches from Debian; its release's name becomes the suite's.
host_suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v host="$host_suite" -v suite="$suite" '$2 ~ "^" host { sub("^" host, suite, $2); print }' | sort -u)
mirror=$(awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }' <<<"$sources")
[ -n "$mirror" ] || fail "this host's apt has no source of Debian $host_suite: there is no mirror to take $suite from"

step "debootstrap from $mirror"
clear_root
mkdir -p "$root" "$cache"
debootstrap --variant=minbase --cache-dir="$cache" --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    "$suite" "$root" "$mirror" >"$folder/$suite.log" 2>&1 ||
    { tail -n 20 "$folder/$suite.log" "$root/debootstrap/debootstrap.log" >&2 || true; fail "debootstrap failed: $folder/$suite.log"; }

step "what comes from this host, and a clean clone"
awk '{ print "deb", $1, $2, $3 }' <<<"$sources" >"$root/etc/apt/sources.list"
{
    apt-config dump | grep -E '^Acquire::(http|https)::' || true
    echo 'Acquire::https::CAInfo "/etc/ssl/host-certificates.crt";'
} >"$root/etc/apt/apt.conf.d/90host"
mkdir -p "$root/etc/ssl"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/host-certificates.crt"
for conf in /etc/pip.conf ~/.config/pip/pip.conf ~/.pip/pip.conf; do
    if [ -f "$conf" ]; then install -D -m 644 "$conf" "$root/${conf/#$HOME/root}"; fi
done
cp "$cache"/*.deb "$root/var/cache/apt/archives/" 2>/dev/null || true
git diff --quiet HEAD -- || echo "note: what is not committed is not tried"
git -c advice.detachedHead=false clone -q --no-hardlinks . "$root/baton"
for at in proc sys dev dev/shm; do
    mount --bind "/$at" "$root/$at" || fail "bind mounts are not permitted here: /$at cannot be had in a fresh machine"
done

certificates=/etc/ssl/host-certificates.crt
environment=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    PIP_CERT=$certificates SSL_CERT_FILE=$certificates REQUESTS_CA_BUNDLE=$certificates PIP_ROOT_USER_ACTION=ignore)
for name in $(compgen -e | grep -E '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT|PROXY)|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY)$' || true); do
    environment+=("$name=${!name}")
done
inside() { env -i "${environment[@]}" chroot "$root" sh -c "cd /baton && exec $1" </dev/null; }
if [ "$only" != release ]; then
    step "deploy/quickstart.sh"
    inside deploy/quickstart.sh
fi
if [ "$only" != quickstart ]; then
    step "tests/run.sh release emulated"
    inside "tests/run.sh release emulated"
fi
step "passed"
