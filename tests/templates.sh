#!/usr/bin/env bash
# Every chat template of some packages on PyPI, rendered by Baton and by Python's jinja2: tests/templates.sh [BUILD FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
ninja -C "$build" --quiet render_chats
mkdir -p "$build/templates"
/usr/bin/python3 tests/templates/fetch.py "$build/templates"
.venv/bin/python tests/templates/compare.py "$build/templates/templates" "$build/bin/render_chats"
