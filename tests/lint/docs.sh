#!/usr/bin/env bash
# Docs say what is there.  The files that pages name exist, links lead somewhere, drawings are what their scripts draw.
# What docs/howto.md calls by name is in the code.  docs/operations.md has every option with its default, every metric and
# every log event; docs/troubleshooting.md every event that is a warning or an error; docs/api.md every endpoint, request
# field and status of an error.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=docs/operations.md
pages=$(git ls-files 'docs/*.md' README.md)
bad=0
report() { echo "$1"; bad=1; }
code=$(git ls-files 'common/*.c' 'common/*.cu' 'coordinator/*.c' '*_node/*.c')
while IFS='|' read -r section key default; do
    [ -z "$section" ] || key="$section.$key"
    grep -qF "| \`$key\` | $default${default:+ }|" $page || report "$page: no row of option $key with default \"$default\""
done < <(tr '\n' ' ' <common/config/config_table.c | grep -oP '\{ SCOPE_(GLOBAL|NODE),[^}]*\}' |
    sed -E 's/^\{ SCOPE_[A-Z]+, +(NULL|"(\w+)"), "(\w+)".*, +"([^"]*)", +"[^"]*"(, \w+)? \}$/\2|\3|\4/')
metrics=$(grep -ohP '"\Kbaton_[a-z0-9_]+(?=")' $code | sort -u | grep -v '^baton_tok_s$')
events_of() { cat $code | tr '\n' ' ' | grep -oP "log_($1)(_limited)?"'\((level, )?\s*"\K[a-z_]+' | sort -u; }
events=$(events_of 'error|warn|info|debug|write')
alarms=$(events_of 'error|warn|write')
trouble=docs/troubleshooting.md
rows=$(grep -oP '^\| `\K[a-z_]+(?=` \|)' $trouble | sort)
for name in $metrics; do grep -qP "\`$name[\`{]" $page || report "$page: no metric $name"; done
limited=$(sed -n '/The limited events are/,/^$/p' $page)
for name in $(cat $code | tr '\n' ' ' | grep -oP 'log_\w+_limited\(\s*"\K[a-z_]+' | sort -u); do
    grep -qF "\`$name\`" <<<"$limited" || report "$page: the limited event $name is not among them"
done
for name in $events; do grep -qF "\`$name\`" $page || report "$page: no log event $name"; done
for name in $alarms; do grep -qxF "$name" <<<"$rows" || report "$trouble: no row of the event $name, a warning or an error"; done
for name in $rows; do grep -qxF "$name" <<<"$alarms" || report "$trouble: $name is no warning and no error"; done
for name in $(uniq -d <<<"$rows"); do report "$trouble: two rows of $name"; done
for name in $(grep -ohP '\bbaton_[a-z0-9_]+' $pages | sort -u); do
    grep -qxF "$name" <<<"$metrics" || report "docs: $name is no metric"
done
for name in $(sed -n '/^## Log events/,$p' $page | grep -P '^\| `' | cut -d'|' -f2 | grep -oP '`\K[a-z_]+'); do
    grep -qxF "$name" <<<"$events" || report "$page: $name is no log event"
done
for name in $(sed -n '/^## Options/,/^## Metrics/p' $page | grep -oP '^\| `\K[a-z_.]+'); do
    grep -qF "\"${name##*.}\"" common/config/config_table.c || report "$page: $name is no option"
done
for name in $(grep -oP '\{ "\K\w+(?=", FIELD_)' coordinator/openai_fields.c); do
    grep -qF "\`$name" docs/api.md || report "docs/api.md: no request field $name"
done
for name in $(grep -oP '^    \{ "\K/[\w/]+' coordinator/api.c); do
    grep -qF "$name" docs/api.md || report "docs/api.md: no endpoint $name"
done
for status in $(grep -oP '^    X\(\K[45]\d\d' common/http/http_status.h); do
    sed -n '/^## Errors/,$p' docs/api.md | cut -d'|' -f2 | grep -qw "$status" || report "docs/api.md: no status $status"
done
files=$(git ls-files)
for name in $(grep -ohP '[\w/-]+\.(c|h|py|sh|md|yaml|proto)\b' $pages CONTRIBUTING.md | sort -u); do
    grep -qE "(^|/)${name#/}$" <<<"$files" || report "docs: there is no file $name"
done
for name in $(grep -oP '`\K[A-Za-z]\w*(?=(\(\))?`)' docs/howto.md | grep '[_A-Z]' | sort -u); do
    git grep -qwF "$name" -- '*.c' '*.h' '*.proto' '*.txt' || report "docs/howto.md: nothing in the code is called $name"
done
slugs_of() { grep -P '^#+ ' "$1" | tr '[:upper:]' '[:lower:]' | sed -E 's/^#+ //; s/[^a-z0-9_ -]//g; s/ /-/g'; }
for from in $pages CONTRIBUTING.md; do
    for link in $(grep -oP '\]\(\K[^)\s]+' "$from" | grep -v '^http' | sort -u); do
        to=$(dirname "$from")/${link%%#*}
        [ -n "${link%%#*}" ] || to=$from
        if [ ! -e "$to" ]; then report "$from: the link $link leads nowhere"; continue; fi
        case $link in *'#'*) slugs_of "$to" | grep -qxF "${link#*#}" || report "$from: $to has no heading ${link#*#}" ;; esac
    done
done
/usr/bin/python3 docs/draw/all.py --check || bad=1
exit $bad
