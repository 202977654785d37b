"""inspect and tokenize on the real model."""
import json
import subprocess

import pytest
from cluster import BIN, MODEL
from exact import golden


def baton(*args, stdin=b""):
    return subprocess.run([str(BIN / "baton"), *map(str, args)], input=stdin, capture_output=True, timeout=120)


def test_inspect():
    r = baton("inspect", MODEL)
    assert r.returncode == 0 and b"llama" in r.stdout and b"Q4_1" in r.stdout
    assert baton("inspect", "none.gguf").returncode == 1
    assert baton("inspect").returncode == 2


def test_tokenize_agrees_with_the_reference_and_comes_back():
    for p in golden(700):
        r = baton("tokenize", "-m", MODEL, "--parse-special", stdin=p["text"].encode())
        assert r.returncode == 0, r.stderr
        assert json.loads(r.stdout) == p["ids"], p["name"]
    text = "Grüße 😀 日本"
    ids = baton("tokenize", "-m", MODEL, stdin=text.encode()).stdout
    assert baton("tokenize", "-m", MODEL, "--decode", stdin=ids).stdout.decode().rstrip("\n") == text


@pytest.mark.parametrize("args,stdin,word", [
    ([], b"ab\xff", b"2"), (["--decode"], b"[1, 99999999]", b"99999999"), (["--decode"], b"hello", b"JSON")])
def test_tokenize_refuses_bad_input(args, stdin, word):
    r = baton("tokenize", "-m", MODEL, *args, stdin=stdin)
    assert r.returncode == 1 and word in r.stderr, r.stderr


@pytest.mark.parametrize("args,says", [
    (["inspect", "a", "b"], "one file is needed, 2 are given"),
    (["inspect", "--tensor", "a"], "unknown option --tensor; did you mean --tensors?"),
    (["tokenize"], "--model FILE.gguf is needed"),
    (["status", "x"], 'unexpected argument "x"'),
    (["chat", "--max-tokens", 0], '--max-tokens: "0" is not allowed; allowed: 1..1000000000'),
    (["chat", "--temperature", "hot"], '--temperature: "hot" is not allowed; allowed: 0..100')])
def test_bad_flags_are_named(args, says):
    r = baton(*args)
    assert r.returncode == 2 and says in r.stderr.decode()
