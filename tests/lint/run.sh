#!/usr/bin/env bash
# Style that a machine can check: layers, banned functions, sizes, names and sentences in docs, formatting, leftovers.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
for check in layers banned sizes docs sentences format; do
    if tests/lint/$check.sh; then echo "lint $check: fine"; else echo "lint $check: FAILED" >&2; bad=1; fi
done
exit $bad
