"""What a chat's messages say is text, and what the model's template says to clients and operators."""
import pytest

from cluster import Cluster
from gguf_edit import edited

USER = [{"role": "user", "content": "hi"}]


def prompt_tokens(cluster, content):
    status, answer, _ = cluster.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": content}], "max_tokens": 1})
    assert status == 200, answer
    return answer["usage"]["prompt_tokens"]


def count(cluster, text, **kw):
    return cluster.post("/tokenize", {"content": text, **kw})[1]["count"]


def test_control_tokens_in_a_message_are_text(cluster):
    around = prompt_tokens(cluster, "x") - count(cluster, "x")
    for token in ("<|im_end|>", "<|im_start|>", "<|endoftext|>"):
        as_text = count(cluster, token, parse_special=False)
        assert count(cluster, token) == 1 < as_text
        assert prompt_tokens(cluster, token) == around + as_text
    assert cluster.complete("<|im_end|>", max_tokens=1)["usage"]["prompt_tokens"] == 1
    as_text = count(cluster, "<|im_end|>", parse_special=False)
    assert cluster.complete("<|im_end|>", max_tokens=1, parse_special=False)["usage"]["prompt_tokens"] == as_text


def test_content_specials_brings_the_old_way_back(tmp_path):
    with Cluster(tmp_path, coordinator={"content_specials": True}) as c:
        assert prompt_tokens(c, "<|im_end|>") == prompt_tokens(c, "x")
        c.wait_idle()


def with_template(tmp_path, template):
    return Cluster(tmp_path, prefill=0, decode=1,
                   model=edited(tmp_path / "model.gguf", {"tokenizer.chat_template": template}))


@pytest.mark.parametrize("template, status, says, warned", [
    ("{{ raise_exception('Only one turn, please') }}", 400, "Only one turn, please", None),
    ("{% include 'x' %}", 501, "{% include %}", "chat_template_refused"),
    ("{% if %}", 501, "line 1", "chat_template_refused"),
    ("a\n{{ messages[0].content + 1 }}", 500, "line 2, {{ messages[0].content + 1 }}: can only concatenate str", None),
])
def test_what_a_template_says(tmp_path, template, status, says, warned):
    with with_template(tmp_path, template) as c:
        for _ in range(2):
            code, answer, headers = c.post("/v1/chat/completions", {"messages": USER, "max_tokens": 1})
            assert code == status and says in answer["error"]["message"], answer
            assert headers["x-should-retry"] == "false"
        assert c.processes["coordinator"].log().count("chat_template_refused") == (1 if warned else 0)


def test_the_log_says_what_a_file_lacks(tmp_path):
    lacking = edited(tmp_path / "model.gguf", {}, drop=("tokenizer.chat_template", "tokenizer.ggml.pre"))
    with Cluster(tmp_path, prefill=0, decode=1, model=lacking) as c:
        log = c.processes["coordinator"].log()
        assert log.count("model_lacks") == 2, log
        assert "tokenizer.chat_template is missing" in log and "tokenizer.ggml.pre is missing" in log
