#!/usr/bin/env bash
# From a fresh clone to a real model's answer from a real cluster: installs, builds, fetches, starts, asks.
set -euo pipefail
cd "$(dirname "$0")/.."

prompt="What is the capital of Germany?"
keep=false
usage() { echo "usage: deploy/quickstart.sh [--prompt TEXT] [--keep]"; }
while [ $# -gt 0 ]; do
    case $1 in
    --prompt) [ $# -ge 2 ] || { usage >&2; exit 2; }; prompt=$2; shift 2 ;;
    --keep) keep=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done

step() { printf '\n== %s\n' "$1"; }

step "1/4 packages"
deploy/install-deps.sh

step "2/4 build"
cmake --preset release -DBATON_TESTS=OFF >/dev/null
ninja -C build

step "3/4 model"
deploy/fetch-model.sh
ls -lh models/*.gguf | awk '{print $NF, $5}'

step "4/4 cluster"
log=$(mktemp)
out=$(mktemp)
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
flags=()
port_is_free 8080 || { echo "port 8080 is taken: another one is used"; flags+=(--http 127.0.0.1:0); }
port_is_free 9090 || flags+=(--control tcp://127.0.0.1:0)
setsid build/bin/baton up deploy/config/local.yaml "${flags[@]}" >"$out" 2>"$log" &
cluster=$!
stop() { kill "$cluster" 2>/dev/null && wait "$cluster" 2>/dev/null || true; rm -f "$log" "$out"; }
trap stop EXIT
printf 'loading'
for _ in $(seq 300); do
    grep -q '^ready ' "$out" && break
    kill -0 "$cluster" 2>/dev/null || { echo; cat "$log" >&2; echo "error: the cluster did not start" >&2; exit 1; }
    printf '.'
    sleep 0.2
done
url=$(awk '$1 == "ready" { print $2 }' "$out")
[ -n "$url" ] || { echo; cat "$log" >&2; echo "error: the cluster was not ready within 60 s" >&2; exit 1; }
echo " ready: $url"
build/bin/baton status --url "$url"

printf '\n> %s\n' "$prompt"
build/bin/baton chat --url "$url" --prompt "$prompt" --temperature 0 --max-tokens 256 --stats

if $keep; then
    trap - EXIT
    disown "$cluster"
    rm -f "$out"
    printf '\nThe cluster stays up at %s (log: %s; stop it with: kill %s)\n\n' "$url" "$log" "$cluster"
    printf "  curl -N %s/v1/chat/completions -H 'Content-Type: application/json' \\\\\n" "$url"
    printf "    -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"stream\":true}'\n"
fi
