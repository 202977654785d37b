"""baton-bench: files that synth writes load and run, and bad flags say what is wrong."""
import json
import math
import subprocess

import pytest
from cluster import BIN

TINY = ["--layers", "1", "--vocab", "300"]


def bench(*args, rc=0, **kw):
    out = subprocess.run([BIN / "baton-bench", *map(str, args)], capture_output=True, text=True, timeout=240, **kw)
    assert out.returncode == rc, out.stderr
    return out


@pytest.mark.parametrize("shape,kind", [("smollm2-135m", "F16"), ("smollm2-135m", "Q4_0"), ("llama-1b", "Q4_K_M"),
                                        ("deepseek-v2-lite", "Q4_K_M"), ("qwen3.6-35b-a3b", "Q4_K_M")])
def test_a_synthetic_model_runs(tmp_path, shape, kind):
    path = tmp_path / "synth.gguf"
    bench("synth", "-o", path, "--shape", shape, "--type", kind, *TINY)
    out = json.loads(bench("engine", "-m", path, "-p", 24, "-n", 2, "-d", 70, "-s", 3, "-r", 2, "-t", 1, "--json").stdout)
    for key in ("prefill_tok_s", "decode_tok_s", "prefill_share", "decode_share", "read_bytes_s", "int8_ops_s"):
        assert len(out[key + "_samples"]) == 2
        assert all(math.isfinite(v) and v > 0 for v in out[key + "_samples"]), (key, out)
        assert min(out[key + "_samples"]) <= out[key] <= max(out[key + "_samples"])
    assert (out["streams"], out["depth"]) == (3, 70)


def test_the_same_seed_gives_the_same_file(tmp_path):
    files = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        bench("synth", "-o", tmp_path / name, "--shape", "smollm2-135m", "--type", "Q5_1", "--seed", seed, *TINY)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


def test_engine_takes_a_step_for_each_line(tmp_path):
    path = tmp_path / "synth.gguf"
    bench("synth", "-o", path, "--shape", "smollm2-135m", "--type", "Q8_0", *TINY)
    out = bench("engine", "-m", path, "-p", 0, "-n", 2, "-t", 1, "--step", input="\n\n").stdout.splitlines()
    assert out[0] == "ready" and len(out) == 3
    for line in map(json.loads, out[1:]):
        assert line["decode_tok_s"] > 0 and "prefill_tok_s" not in line


@pytest.mark.parametrize("kind", ["F16", "Q4_K", "IQ3_S"])
def test_the_engine_is_near_float_arithmetic(tmp_path, kind):
    path = tmp_path / "synth.gguf"
    bench("synth", "-o", path, "--shape", "llama-1b", "--type", kind, *TINY)
    rows = bench("exact", "-m", path, "-n", 40, "-t", 1).stdout.splitlines()[-3:]
    assert [r[:14].strip() for r in rows] == ["float", "engine, f16", "engine, int8"]
    errors = [float(r.split()[-4]) for r in rows]
    assert errors[0] == 0 and errors[2] < 0.03
    assert errors[1] == 0 if kind == "F16" else 0 < errors[1] < 0.03


def test_processor_time_leaves_ceilings_out(tmp_path):
    path = tmp_path / "synth.gguf"
    bench("synth", "-o", path, "--shape", "smollm2-135m", "--type", "Q8_0", *TINY)
    out = json.loads(bench("engine", "-m", path, "-p", 24, "-n", 2, "-s", 3, "-r", 1, "-t", 1, "--cpu", "--json").stdout)
    assert out["prefill_tok_s"] > 0 and out["decode_tok_s"] > 0
    assert out["read_bytes_s"] == out["int8_ops_s"] == out["decode_share"] == out["prefill_share"] == 0


def test_comparisons_want_a_text():
    assert "a file with text is needed" in bench("kv", "-m", "x.gguf", rc=2).stderr
    assert "baton-bench exact: --model FILE is needed" in bench("exact", rc=2).stderr


def test_kernels_are_measured():
    out = json.loads(bench("kernels", "--type", "Q4_0", "--isa", "auto", "-t", 1, "--json").stdout)
    assert {k["type"] for k in out["kernels"]} == {"Q4_0"} and {1, 8} <= {k["rows"] for k in out["kernels"]}
    assert {k["op"] for k in out["kernels"]} >= {"pack", "matmul"}
    assert all(k["bytes_s"] > 0 and (k["ops_s"] > 0 or k["op"] == "pack") for k in out["kernels"])


@pytest.mark.parametrize("args,rc,says", [
    (["--shape", "llama-9b", "--type", "Q4_0"], 2, '--shape: "llama-9b" is not allowed; allowed: smollm2-135m, llama-1b'),
    (["--shape", "llama-1b", "--type", "Q9_K"], 2, '--type is "Q9_K", allowed are F32'),
    (["--shape", "llama-1b", "--type", "Q4_0", "--head", "x"], 2, '--head is "x", allowed are F32'),
    (["--shape", "llama-1b", "--type", "Q4_0", "--vocab", "10"], 2, '--vocab: "10" is not allowed; allowed: 259..1048576'),
    (["--shape", "smollm2-135m", "--type", "Q4_K"], 1, "token_embd.weight has rows of 576 values, Q4_K comes in blocks of 256"),
    (["--shape", "llama-1b"], 2, "baton-bench synth: --type TYPE is needed"),
])
def test_synth_refuses(tmp_path, args, rc, says):
    assert says in bench("synth", "-o", tmp_path / "x.gguf", *args, rc=rc).stderr
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("shape,kind,gb", [  # the sum of all tensors: nothing is written
    ("llama-70b", "F16", "141.11"), ("qwen3-30b-a3b", "Q4_K_M", "18.64"), ("qwen3.6-35b-a3b", "Q4_K_M", "21.23"),
    ("gemma-3-27b", "Q4_K_M", "16.55"), ("gpt-oss-20b", "Q8_0", "12.10"), ("deepseek-v2-lite", "Q4_K_M", "10.42"),
])
def test_synth_looks_at_the_disk_first(shape, kind, gb):
    says = bench("synth", "-o", "/proc/x.gguf", "--shape", shape, "--type", kind, rc=1).stderr  # a disk that never has room
    assert f"/proc/x.gguf would take {gb} GB, the disk has 0.00 GB left" in says


def test_experts_have_a_type_of_their_own(tmp_path):
    path = tmp_path / "synth.gguf"
    bench("synth", "-o", path, "--shape", "gpt-oss-20b", "--type", "Q8_0", "--experts", "Q4_0", *TINY)
    out = subprocess.run([BIN / "baton", "inspect", "--tensors", path], capture_output=True, text=True).stdout
    rows = {r.split()[0]: r for r in out.splitlines() if r.strip().startswith("blk.0.")}
    assert "Q4_0" in rows["blk.0.ffn_up_exps.weight"] and "Q8_0" in rows["blk.0.attn_q.weight"]
    assert "F32" in rows["blk.0.attn_sinks.weight"] and "F32" in rows["blk.0.ffn_down_exps.bias"]


@pytest.mark.parametrize("args,says", [
    (["engine", "-m", "x", "-p", 0, "-n", 0], "leave nothing to measure"),
    (["engine", "-m", "x", "--cpu", "-t", 2], "--cpu is for --threads 1"),
    (["engine", "-m", "x", "-s", 257], '--streams: "257" is not allowed; allowed: 1..256'),
    (["engine", "-m", "x", "--thread", 1], "unknown option --thread; did you mean --threads?"),
    (["engine", "-m", "x", "--kv", "int4"], '--kv: "int4" is not allowed; allowed: int8, f16'),
    (["stream", "-m", "x", "--io", "mmap"], '--io: "mmap" is not allowed; allowed: auto, uring, pread'),
    (["load", "-m"], "baton-bench load: -m needs a value"),
    (["handoff", "--lanes", "two"], '--lanes: "two" is not allowed; allowed: 1..16'),
    (["kernels", "--type", "Q9_K"], '--type is "Q9_K"'),
    (["kernels", "--backend", "rocm"], '"rocm" is not allowed; allowed: cpu, cuda'),
    (["kernels", "--isa", "sse9"], 'isa "sse9": expected auto, ref, avx2'),
])
def test_bad_flags_are_named(args, says):
    assert says in bench(*args, rc=2).stderr


@pytest.mark.parametrize("shape,least", [("small-hybrid", 0.85), ("small-windows", 0.7)])
def test_pool_counts_what_sequences_use_while_others_wait(tmp_path, shape, least):
    path = tmp_path / "small.gguf"
    bench("synth", "-o", path, "--shape", shape, "--type", "Q8_0")
    out = json.loads(bench("pool", "-m", path, "--memory", 3000, "-n", 30, "--shortest", 200, "--longest", 900, "-t", 1,
                           "--answer", 20, "--json").stdout)
    assert out["samples"] > 0 and out["running"] > 1
    assert least < out["known"] <= 1 and out["least"] <= out["known"] and 0 < out["computed"] <= out["known"]
    assert abs(out["states"] + out["windows"] + out["others"] - out["known"]) < 0.001
    assert (out["states"] > 0) == (shape == "small-hybrid")
    assert "sequences of 500 to 200 tokens" in bench("pool", "-m", path, "--memory", 3000, "--shortest", 500, "--longest",
                                                       200, rc=1).stderr
