#!/usr/bin/env bash
# Functions and words that do not belong into the tree.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
if git grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|alloca)\s*\(' -- '*.c' '*.h' ':!common/base/banned.h'; then
    echo "banned functions: use base/strbuf.h, snprintf, strtol with checks"; bad=1
fi
if git grep -nE 'TODO|FIXME|XXX|#if 0' -- '*.c' '*.h' '*.sh' ':!tests/lint/banned.sh'; then
    echo "leftovers: finish it, or put it into docs/roadmap.md"; bad=1
fi
exit $bad
