#!/usr/bin/env bash
# One file, one job: no .c or .h over 600 lines, no line over 120 columns, no function over 70 lines in the project's folders.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
while read -r lines file; do
    [ "$file" = total ] || [ "$lines" -le 600 ] || { echo "$file: $lines lines (600 is the ceiling)"; bad=1; }
done < <(git ls-files '*.c' '*.h' '*.cu' | xargs wc -l)
git ls-files 'common/*.c' 'coordinator/*.c' 'prefill_node/*.c' 'decode_node/*.c' 'bench/*.c' | xargs awk '
    FNR == 1 { start = 0 }
    /^{$/ { start = FNR }
    /^}$/ && start { if (FNR - start > 71) { printf "%s:%d: function of %d lines (70 is the ceiling)\n", FILENAME, start, FNR - start - 1; bad = 1 } start = 0 }
    length($0) > 120 { printf "%s:%d: %d columns (120 is the ceiling)\n", FILENAME, FNR, length($0); bad = 1 }
    END { exit bad }' || bad=1
exit $bad
