#!/usr/bin/env bash
# Folders are layers: a file includes only what stands on its folder's row. Prints each offence, exits 1 on any.
set -euo pipefail
cd "$(dirname "$0")/../.."
allowed() {
    case $1 in
    base) echo "base" ;;
    config | job | kv | http | text) echo "$1 base" ;;
    wire) echo "wire base job proto" ;;
    formats) echo "formats base text compute/dtype.h" ;; # the table of types alone, no kernels
    compute) echo "compute base" ;;
    parallel) echo "parallel base compute" ;;
    store) echo "store base kv compute parallel" ;;
    model) echo "model base formats kv compute parallel store" ;;
    engine) echo "engine base job text kv compute parallel store model" ;;
    node) echo "node base config job text formats kv wire http compute parallel store model engine proto" ;;
    coordinator) echo "coordinator base config job text formats kv wire http proto" ;;
    cli) echo "coordinator base config text formats compute model http" ;;
    prefill_node | decode_node) echo "$1 node engine config base" ;;
    esac
}
bad=0
check() { # <folder name> <files...>
    local folder=$1 row
    shift
    row=" $(allowed "$folder") "
    while IFS=: read -r file line include; do
        case $row in *" ${include%%/*} "* | *" $include "*) continue ;; esac
        echo "$file:$line: $folder may not include $include (allowed:$row)"
        bad=1
    done < <(grep -nHoP '^\s*#include "\K[^"/]+/[^"]+' "$@" /dev/null || true)
}
for dir in common/*/; do
    mapfile -t files < <(find "$dir" -name '*.[ch]')
    [ ${#files[@]} -gt 0 ] && check "$(basename "$dir")" "${files[@]}"
done
for pair in coordinator:coordinator cli:coordinator/cli prefill_node:prefill_node decode_node:decode_node; do
    mapfile -t files < <(find "${pair#*:}" -maxdepth 1 -name '*.[ch]')
    [ ${#files[@]} -gt 0 ] && check "${pair%%:*}" "${files[@]}"
done
exit $bad
