"""A minute of bench/soak.py: faults under load lose nothing and change nothing. Gaps are shown, not judged: they depend on the machine."""
import json
import subprocess
import sys

import pytest
from cluster import BIN, ROOT

FAULTS = ["kill9_decode", "flip_control", "cut_kv", "flip_kv", "cut_control", "kill9_prefill", "kill9_both_prefill"]


@pytest.mark.slow
def test_nothing_is_lost_or_different_under_faults(tmp_path):
    out = tmp_path / "soak.json"
    run = subprocess.run([sys.executable, ROOT / "bench" / "soak.py", "--bin", BIN.parent, "--minutes", "1", "--gaps", "show",
                          "--faults", ",".join(FAULTS), "--proxied", "--seconds", "6", "--calm", "1", "--requests", "8",
                          "--tokens", "48", "-v", "-o", out], capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(out.read_text())
    assert sum(r["requests"] for r in result["results"]) > 0
    assert all(r["lost"] == r["different"] == 0 for r in result["results"])
