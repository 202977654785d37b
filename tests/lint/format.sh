#!/usr/bin/env bash
# clang-format decides layout.
set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files '*.c' '*.h' | xargs clang-format-14 --dry-run -Werror 2>&1 | grep -E 'error:' | cut -d: -f1 | sort | uniq -c | head -20 && exit 1
exit 0
