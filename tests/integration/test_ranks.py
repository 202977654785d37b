"""Nodes of several ranks: whatever their shapes, a request has the tokens that one rank gives by itself.

That every shape gives the bits and the cache of one rank, unit/model/ranks.c knows; here the processes do it.
"""
import json

import pytest
from cluster import ROOT, SANITIZED, Cluster

FOLDER = ROOT / "tests" / "golden" / "families"
LENGTHS = [5, 65, 140]
ONE = (1, 1)
# Prefill and decode node, each (tp, pp): three query heads of one kv head; four layers of llama, six of gemma3.
SHAPES = [("llama", (2, 1), ONE), ("llama", ONE, (1, 2)), ("llama", (3, 2), (2, 1)), ("gemma3", (2, 1), (1, 3)),
          # States: two key heads with three v heads each, three of two; six heads in three groups.
          ("qwen35", (2, 1), ONE), ("qwen35", ONE, (2, 1)), ("qwen35", (2, 1), (1, 2)), ("qwen35moe", (3, 1), (2, 3)),
          ("mamba2", (2, 1), ONE), ("mamba2", ONE, (4, 1)), ("mamba2", (6, 1), (1, 2)), ("qwen3next", (1, 3), (3, 1))]


def node(shape):
    return {"parallel": {"tp": shape[0], "pp": shape[1]}}


def cluster(tmp_path, name, prefill, decode):
    tmp_path = tmp_path / f"{name} {prefill} {decode}"
    tmp_path.mkdir()
    return Cluster(tmp_path, prefill=1 if prefill else 0, models=[{"name": name, "path": str(FOLDER / f"{name}.q.gguf")}],
                   node={"kv_memory": "32MiB"}, prefill_node=node(prefill or ONE),
                   decode_node={**node(decode), "local_prefill": "never" if prefill else "always"})


def answers(c, name):
    tokens = json.loads((FOLDER / f"{name}.q.json").read_text())["tokens"]
    runs = []
    for n in LENGTHS:
        for _ in range(2):  # the second one begins with what is cached
            answer = c.complete(tokens[:n], max_tokens=40, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True)
            runs.append(answer["choices"][0]["logprobs"]["tokens"])
    return runs


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The tokens of one rank, for each model."""
    found = {}
    for name in {shape[0] for shape in SHAPES}:
        with cluster(tmp_path_factory.mktemp("alone"), name, None, ONE) as c:
            found[name] = answers(c, name)
    return found


@pytest.mark.parametrize("name, prefill, decode", SHAPES[:1] if SANITIZED else SHAPES)
def test_a_hand_over_between_any_shapes_changes_no_token(tmp_path, alone, name, prefill, decode):
    with cluster(tmp_path, name, prefill, decode) as c:
        assert answers(c, name) == alone[name]
        for process, shape in ("p0", prefill), ("d0", decode):
            assert f" tp={shape[0]} pp={shape[1]} " in c.processes[process].log()
        assert "event=request_done" in c.processes["coordinator"].log()
        assert " prefill=p0 " in c.processes["coordinator"].log()


@pytest.mark.parametrize("name, shape, says", [("llama", (4, 1), "tp is 4, but a layer has only 3 heads"),
                                               ("llama", (1, 5), "pp is 5, but the model has only 4 layers"),
                                               ("qwen35", (3, 1), "tp is 3, but a layer has only 2 key heads"),
                                               ("mamba2", (8, 1), "tp is 8, but a layer has only 6 heads")])
def test_shapes_that_do_not_fit_the_model_are_refused_at_the_start(tmp_path, name, shape, says):
    with pytest.raises(AssertionError, match=says), cluster(tmp_path, name, None, shape):
        pass
