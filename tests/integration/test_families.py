"""Every model family: a prefill node and a decode node give the tokens that one engine gives by itself.

The models are the tiny ones of tests/golden/families; what their logits must be, unit/model/families.c knows.
"""
import json
import re

import pytest
from cluster import ROOT, SANITIZED, Cluster

FOLDER = ROOT / "tests" / "golden" / "families"
NOT_SERVED = {"mixtral", "qwen3moe", "gpt-oss", "deepseek2-lite", "deepseek2", "qwen3next", "qwen35",
              "qwen35moe", "mamba2"}
FAMILIES = sorted(p.name.removesuffix(".q.gguf") for p in FOLDER.glob("*.q.gguf"))
SERVED = [name for name in FAMILIES if name not in NOT_SERVED]
# Within a block, at its border, two blocks and a part.
LENGTHS = [5, 64, 65, 140]
SETTINGS = [{}, {"temperature": 0.9, "top_p": 0.95, "seed": 11}]


def path(name):
    return FOLDER / f"{name}.q.gguf"


def cluster(tmp_path, name, prefill):
    tmp_path = tmp_path / f"with{prefill}"
    tmp_path.mkdir()
    return Cluster(tmp_path, prefill=prefill, decode=1, models=[{"name": name, "path": str(path(name))}],
                   node={"kv_memory": "32MiB"}, decode_node={"local_prefill": "never"} if prefill else {})


def answers(c, tokens):
    """The tokens of each run, which ends within the context and crosses a block's border."""
    runs = []
    for n in LENGTHS:
        for setting in SETTINGS:
            answer = c.complete(tokens[:n], max_tokens=70, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True,
                                **setting)
            runs.append(answer["choices"][0]["logprobs"]["tokens"])
    return runs


@pytest.mark.parametrize("name", ["llama"] if SANITIZED else SERVED)
def test_a_hand_over_changes_no_token(tmp_path, name):
    tokens = json.loads((FOLDER / f"{name}.q.json").read_text())["tokens"]
    with cluster(tmp_path, name, 0) as c:
        alone = answers(c, tokens)
    with cluster(tmp_path, name, 1) as c:
        handed_over = answers(c, tokens)
        done = re.findall(r"event=request_done .*", c.processes["coordinator"].log())
        assert len(done) == len(handed_over) and all(" prefill=p0 " in line for line in done), done
    assert handed_over == alone
    assert len({tuple(run) for run in alone}) == len(alone)  # prompts and seeds do matter


@pytest.mark.parametrize("name", sorted(NOT_SERVED))
def test_a_family_that_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(AssertionError) as e:
        with cluster(tmp_path, name, 0):
            pass
    assert re.search(r"general\.architecture is \"[^\"]+\", supported are: llama, |expert_count is \d+: ", str(e.value)), e
