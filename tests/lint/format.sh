#!/usr/bin/env bash
# clang-format decides layout.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=$(git ls-files '*.c' '*.h' '*.cu' | xargs clang-format-14 --dry-run -Werror 2>&1 | grep -oP '^[^:]+:\d+(?=:\d+: error)' || true)
[ -n "$bad" ] || exit 0
echo "$bad" | awk -F: '{ n[$1]++; if (!first[$1]) first[$1] = $2 } END { for (f in n) printf "%s:%d: first of %d places\n", f, first[f], n[f] }' | sort
echo "run: clang-format-14 -i FILE"
exit 1
