#!/usr/bin/env bash
# clang-format 14 decides layout: others lay out differently.
set -euo pipefail
cd "$(dirname "$0")/../.."
format=
for candidate in .venv/bin/clang-format clang-format-14 clang-format; do
    if "$candidate" --version 2>/dev/null | grep -q 'version 14\.'; then format=$candidate; break; fi
done
[ -n "$format" ] || { echo "there is no clang-format 14: deploy/install-deps.sh --tests puts one into .venv"; exit 1; }
bad=$(git ls-files '*.c' '*.h' '*.cu' | xargs "$format" --dry-run -Werror 2>&1 | grep -oP '^[^:]+:\d+(?=:\d+: error)' || true)
[ -n "$bad" ] || exit 0
echo "$bad" | awk -F: '{ n[$1]++; if (!first[$1]) first[$1] = $2 } END { for (f in n) printf "%s:%d: first of %d places\n", f, first[f], n[f] }' | sort
echo "run: $format -i FILE"
exit 1
