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
    coordinator) echo "coordinator coordinator/cluster/dispatch.h base config job text formats kv wire http proto" ;;
    cluster) echo "coordinator/cluster $below_cluster base job text wire proto" ;;
    below_cluster) echo "$below_cluster base text formats kv http" ;;
    cli) echo "coordinator base config text formats compute model http" ;;
    prefill_node | decode_node) echo "$1 node engine config base" ;;
    esac
}
# What requests, nodes and the API have in common: it knows of neither.
below_cluster="coordinator/api_error.h coordinator/logprobs.h coordinator/meters.h coordinator/served_model.h coordinator/token_limit.h"
bad=0
check() { # <folder name> <files...>
    local folder=$1 row
    shift
    row=" $(allowed "$folder") "
    while IFS=: read -r file line include; do
        local top=${include%%/*}
        case $include in coordinator/cluster/*) top=coordinator/cluster ;; esac # a folder of its own, with one public header
        case $row in *" $top "* | *" $include "*) continue ;; esac
        echo "$file:$line: $folder may not include $include (allowed:$row)"
        bad=1
    done < <(grep -nHoP '^\s*#include "\K[^"/]+/[^"]+' "$@" /dev/null || true)
}
for dir in common/*/; do
    mapfile -t files < <(find "$dir" -name '*.[ch]')
    [ ${#files[@]} -gt 0 ] && check "$(basename "$dir")" "${files[@]}"
done
for pair in coordinator:coordinator cluster:coordinator/cluster cli:coordinator/cli prefill_node:prefill_node decode_node:decode_node; do
    mapfile -t files < <(find "${pair#*:}" -maxdepth 1 -name '*.[ch]')
    [ ${#files[@]} -gt 0 ] && check "${pair%%:*}" "${files[@]}"
done
# The API is handed services.h; the process is its own business.
git grep -n '#include "coordinator/coordinator.h"' -- coordinator ':!coordinator/coordinator.c' ':!coordinator/program.c' && bad=1
mapfile -t files < <(for header in $below_cluster; do echo "$header" "${header%.h}.c"; done | tr ' ' '\n')
check below_cluster "${files[@]}"
exit $bad
