#!/usr/bin/env bash
# Functions and words that do not belong into the tree.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
if git grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atoll|atof|alloca)\(' -- '*.c' '*.h' ':!common/base/banned.h'; then
    echo "banned functions: use base/strbuf.h, snprintf, strtol with checks"; bad=1
fi
if git grep -nE '\b(secure_)?getenv\s*\(' -- 'common/*.[ch]' 'coordinator/*.[ch]' '*_node/*.[ch]' ':!common/config' ':!coordinator/cli'; then
    echo "environment switches: an option is a row of common/config's table"; bad=1
fi
if git grep -nE '\b(TODO|FIXME|XXX)\b|#if 0' -- '*.c' '*.h' '*.sh' ':!tests/lint/banned.sh'; then
    echo "leftovers: finish it, or put it into docs/roadmap.md"; bad=1
fi
exit $bad
