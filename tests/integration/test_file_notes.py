"""Whatever in a file makes answers worse is said once in the log and by `baton inspect`; a part of a model is refused."""
import re
import subprocess

import pytest
from cluster import BIN, MODEL, Cluster
from gguf_edit import edited, split


def inspected(path):
    """The notes, and why the file is not served."""
    r = subprocess.run([BIN / "baton", "inspect", path], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stderr
    notes = re.search(r"\n\nnotes\n((  .+\n)+)", r.stdout)
    refused = re.search(r"\n\nnot served\n  (.+)\n", r.stdout)
    return [line.strip() for line in notes[1].splitlines()] if notes else [], refused and refused[1]


@pytest.mark.parametrize("change, drop, says", [
    ({}, ("tokenizer.chat_template", "tokenizer.ggml.pre"), ["tokenizer.ggml.pre is", "tokenizer.chat_template is"]),
    ({"llama.attention.sliding_window": 256}, (), ["attention.sliding_window is 256"]),
    ({"tokenizer.chat_template": "{{ messages[0].text }}"}, (), ["what messages say is lost"]),
    ({"tokenizer.chat_template": "{{ messages[0].content + 1 }}"}, (), ["can only concatenate str"]),
])
def test_inspect_says_what_the_log_says(tmp_path, change, drop, says):
    path = edited(tmp_path / "model.gguf", change, drop=drop)
    with Cluster(tmp_path, prefill=0, decode=1, model=path) as c:
        log = c.processes["coordinator"].log()
    notes, refused = inspected(path)
    assert refused is None
    assert len(notes) == len(says) and all(any(s in note for note in notes) for s in says), notes
    assert [what.replace('\\"', '"') for what in re.findall(r'event=model_lacks .*what="((?:\\"|[^"])*)"', log)] == notes, log


def test_a_model_without_shortcomings_has_no_notes():
    assert inspected(MODEL) == ([], None)


def test_inspect_says_why_a_file_is_not_served(tmp_path):
    assert "supported are" in inspected(edited(tmp_path / "a.gguf", {"general.architecture": "mystery"}))[1]
    notes, refused = inspected(edited(tmp_path / "b.gguf", {"tokenizer.chat_template": "{% include 'x' %}"}))
    assert any("{% include %}" in note for note in notes) and refused is None
    # a layer less: the tensors of the last one are nobody's
    assert "tensor blk.29." in inspected(edited(tmp_path / "c.gguf", {"llama.block_count": 29}))[1]


def test_everyone_refuses_a_part_that_is_not_the_first_in_the_same_words(tmp_path):
    first, second, _ = split(tmp_path / "model", 3)
    said = f"{second}: part 2 of 3 of a model, which is opened by its first part, {first}"
    for command in (["baton", "inspect"], ["baton-coordinator", "--http", "127.0.0.1:0"], ["baton-decode", "--name", "d0"],
                    ["baton-prefill", "--name", "p0"]):
        r = subprocess.run([BIN / command[0], *command[1:], "--model", second], capture_output=True, text=True, timeout=60)
        assert r.returncode == 1 and said in r.stderr and r.stderr.count(said) == 1, (command, r.stderr)
