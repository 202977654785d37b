"""The OpenAI API through the real client: shapes, streaming, stop strings, batches, echo."""
import json

import pytest
from cluster import MODEL, Cluster, stream

GERMANY = [{"role": "user", "content": "What is the capital of Germany?"}]


@pytest.mark.smoke
def test_chat_answers(client):
    r = client.chat.completions.create(model="smollm2", messages=GERMANY, temperature=0, max_tokens=32)
    assert "Berlin" in r.choices[0].message.content
    assert r.choices[0].finish_reason == "stop" and r.id.startswith("chatcmpl-")
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.smoke
def test_chat_streams_the_same_text(client):
    whole = client.chat.completions.create(model="smollm2", messages=GERMANY, temperature=0, max_tokens=32)
    chunks = list(client.chat.completions.create(model="smollm2", messages=GERMANY, temperature=0, max_tokens=32,
                                                 stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens and not chunks[-1].choices
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1


def test_stream_framing_and_order(cluster):
    events = list(stream(cluster, "/v1/chat/completions", {"messages": GERMANY, "temperature": 0, "max_tokens": 8}))
    assert events[-1] == "[DONE]"
    parsed = [json.loads(e) for e in events[:-1]]
    assert parsed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in p["choices"][0]["delta"] for p in parsed[1:] if p["choices"])
    assert parsed[-1]["choices"][0]["delta"] == {} and parsed[-1]["choices"][0]["finish_reason"]
    assert parsed[-1]["timings"]["prefill_node"] == "p0" and parsed[-1]["timings"]["decode_node"] == "d0"


def test_history_reaches_the_model(cluster):
    turns = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Nice to meet you, Ada!"},
             {"role": "user", "content": "What is my name?"}]
    _, chat, _ = cluster.post("/v1/chat/completions", {"messages": turns, "temperature": 0, "max_tokens": 24})
    text = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    text += "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns) + "<|im_start|>assistant\n"
    _, tok, _ = cluster.post("/tokenize", {"content": text, "parse_special": True})
    assert chat["usage"]["prompt_tokens"] == tok["count"]
    same = cluster.complete(tok["tokens"], max_tokens=24)["choices"][0]["text"]
    assert chat["choices"][0]["message"]["content"] == same


def test_the_last_message_is_continued_token_for_token(cluster, tmp_path):
    """What a chat that continues makes of its prompt is what the prompt's own text gives; by default a turn is closed."""
    begun = GERMANY + [{"role": "assistant", "content": "The capital of Germany is "}]
    text = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    text += f"<|im_start|>user\n{GERMANY[0]['content']}<|im_end|>\n<|im_start|>assistant\n{begun[1]['content']}"

    def ids(prompt):
        return cluster.post("/tokenize", {"content": prompt, "parse_special": True})[1]["tokens"]

    def expect(c, prompt, **kw):
        _, chat, _ = c.post("/v1/chat/completions", {"messages": begun, "temperature": 0, "max_tokens": 8, **kw})
        assert chat["usage"]["prompt_tokens"] == len(ids(prompt)), chat
        assert chat["choices"][0]["message"]["content"] == cluster.complete(ids(prompt), max_tokens=8)["choices"][0]["text"]

    closed = text + "<|im_end|>\n"
    expect(cluster, text, continue_final_message=True)
    expect(cluster, text, continue_final_message=True, add_generation_prompt=False)
    expect(cluster, closed + "<|im_start|>assistant\n")
    expect(cluster, closed, add_generation_prompt=False)
    code, answer, _ = cluster.post("/v1/chat/completions", {"messages": begun, "continue_final_message": True,
                                                            "add_generation_prompt": True})
    assert code == 400 and answer["error"]["param"] == "continue_final_message"
    with Cluster(tmp_path, prefill=0, coordinator={"prefill_assistant": True}) as c:
        expect(c, text)
        expect(c, closed + "<|im_start|>assistant\n", continue_final_message=False)


def test_completions_batch_of_strings(client):
    r = client.completions.create(model="smollm2", prompt=["The sky is", "Two plus two is"], max_tokens=4, temperature=0)
    alone = client.completions.create(model="smollm2", prompt="Two plus two is", max_tokens=4, temperature=0)
    assert [c.index for c in r.choices] == [0, 1] and r.choices[1].text == alone.choices[0].text


def test_token_ids_give_what_their_text_gives(cluster):
    text = "The quick brown fox"
    _, tok, _ = cluster.post("/tokenize", {"content": text})
    assert tok["count"] == len(tok["tokens"]) and tok["max_model_len"] == 8192
    _, back, _ = cluster.post("/detokenize", {"tokens": tok["tokens"]})
    assert back["content"] == text
    a, b = cluster.complete(text), cluster.complete(tok["tokens"])
    assert a["choices"][0]["text"] == b["choices"][0]["text"]
    both = cluster.complete([tok["tokens"], tok["tokens"]])
    assert [c["text"] for c in both["choices"]] == [a["choices"][0]["text"]] * 2


def test_echo_with_logprobs(cluster):
    r = cluster.complete("Once upon a time", echo=True, logprobs=2, max_tokens=3)
    choice, lp = r["choices"][0], r["choices"][0]["logprobs"]
    assert choice["text"].startswith("Once upon a time")
    n = r["usage"]["prompt_tokens"]
    assert lp["token_logprobs"][0] is None and lp["top_logprobs"][0] is None
    assert len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["text_offset"]) == n + 3
    assert all(v <= 0 for v in lp["token_logprobs"][1:])
    assert "".join(lp["tokens"]) == choice["text"]


def test_echo_without_new_tokens(cluster):
    r = cluster.complete("Once upon a time", echo=True, logprobs=1, max_tokens=0)
    assert r["choices"][0]["text"] == "Once upon a time"
    assert len(r["choices"][0]["logprobs"]["tokens"]) == r["usage"]["prompt_tokens"]


def test_chat_logprobs(client):
    r = client.chat.completions.create(model="smollm2", messages=GERMANY, temperature=0, max_tokens=4, logprobs=True,
                                       top_logprobs=3)
    entries = r.choices[0].logprobs.content
    assert len(entries) == 4 and all(len(e.top_logprobs) == 3 for e in entries)
    assert all(e.top_logprobs[0].token == e.token and bytes(e.bytes).decode() == e.token for e in entries)


def test_stop_string_cuts_and_counts(cluster):
    whole = cluster.complete("Count: one, two, three,", max_tokens=24)
    text = whole["choices"][0]["text"]
    stop = text[10:14]
    cut = cluster.complete("Count: one, two, three,", max_tokens=24, stop=[stop])
    assert cut["choices"][0]["text"] == text[:text.index(stop)] and cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


def test_sampling_parameters_do_what_they_say(cluster):
    base = cluster.complete("My favourite colour is", max_tokens=8)["choices"][0]["text"]
    seeded = [cluster.complete("My favourite colour is", max_tokens=8, temperature=1.5, seed=s)["choices"][0]["text"]
              for s in (1, 1, 2, 3)]
    assert seeded[0] == seeded[1] and len(set(seeded)) > 1
    assert cluster.complete("My favourite colour is", max_tokens=8, temperature=1.5, seed=5, top_k=1)["choices"][0]["text"] == base
    _, tok, _ = cluster.post("/tokenize", {"content": base})
    banned = cluster.complete("My favourite colour is", max_tokens=1, logit_bias={str(tok["tokens"][0]): -100})
    assert not base.startswith(banned["choices"][0]["text"])
    repeated = cluster.complete("a a a a a a a a", max_tokens=16, repetition_penalty=1.8)["choices"][0]["text"]
    assert repeated != cluster.complete("a a a a a a a a", max_tokens=16)["choices"][0]["text"]


def test_a_thousand_biases_and_64_stop_strings(cluster):
    base = cluster.complete("Count: one, two, three,", max_tokens=12)["choices"][0]["text"]
    _, tok, _ = cluster.post("/tokenize", {"content": base})
    bias = {str(t): -100 for t in range(21, 1044)}
    bias[str(tok["tokens"][0])] = -100  # the last of 1024: on the prefill node it changes token 0, on the decode node others
    biased = cluster.complete("Count: one, two, three,", max_tokens=12, logit_bias=bias, logprobs=0,
                              return_tokens_as_token_ids=True)["choices"][0]["logprobs"]["tokens"]
    assert not {t.split(":")[1] for t in biased} & set(bias)
    stops = [f"never {i}" for i in range(63)] + [base[5:9]]
    cut = cluster.complete("Count: one, two, three,", max_tokens=12, stop=stops)["choices"][0]
    assert cut["text"] == base[:base.index(base[5:9])] and cut["finish_reason"] == "stop"
    for field, value in (("logit_bias", {str(t): 1 for t in range(1025)}), ("stop", ["x"] * 65)):
        status, answer, _ = cluster.post("/v1/completions", {"prompt": "x", field: value})
        assert status == 400 and answer["error"]["param"] == field


def test_min_tokens_and_ignore_eos(cluster):
    chat = {"messages": GERMANY, "temperature": 0}
    _, short, _ = cluster.post("/v1/chat/completions", {**chat, "max_tokens": 64})
    n = short["usage"]["completion_tokens"]
    _, longer, _ = cluster.post("/v1/chat/completions", {**chat, "max_tokens": 64, "min_tokens": n + 8})
    assert longer["usage"]["completion_tokens"] >= n + 8
    _, full, _ = cluster.post("/v1/chat/completions", {**chat, "max_tokens": 64, "ignore_eos": True})
    assert full["usage"]["completion_tokens"] == 64 and full["choices"][0]["finish_reason"] == "length"


def test_unicode_is_never_split(cluster):
    events = stream(cluster, "/v1/completions", {"prompt": "Emoji: 😀 🎉 日本語 😀 🎉", "max_tokens": 24,
                                                 "temperature": 0, "ignore_eos": True})
    text = "".join(json.loads(e)["choices"][0]["text"] for e in events if e != "[DONE]" and json.loads(e)["choices"])
    whole = cluster.complete("Emoji: 😀 🎉 日本語 😀 🎉", max_tokens=24, ignore_eos=True)["choices"][0]["text"]
    assert text == whole


def test_what_asks_for_nothing_changes_nothing(client):
    """Fields at their defaults, as clients and frameworks send them, through the real client."""
    plain = client.chat.completions.create(model="smollm2", messages=GERMANY, temperature=0, max_tokens=16)
    full = client.chat.completions.create(
        model="smollm2", messages=[{**GERMANY[0], "name": ""}], temperature=0.0, max_tokens=16.0, top_p=0, n=1, tools=[],
        tool_choice="none", parallel_tool_calls=False, response_format={"type": "text"}, stop=[], logit_bias={},
        logprobs=False, top_logprobs=0, frequency_penalty=0, presence_penalty=0, modalities=["text"], store=False,
        metadata={}, user="", service_tier="auto", stream_options=None,
        extra_body={"mirostat": 0, "typical_p": 1, "best_of": 1, "cache_prompt": True, "repeat_penalty": 1.0, "top_k": -1,
                    "stop_token_ids": [], "skip_special_tokens": True, "guided_choice": [], "grammar": ""})
    assert full.choices[0].message.content == plain.choices[0].message.content
    said = full.choices[0].message.model_dump()  # goes back as it came, with all its empty members
    again = client.chat.completions.create(
        model="smollm2", temperature=0, max_tokens=4,
        messages=GERMANY + [{**said, "tool_calls": [], "annotations": []}, {"role": "assistant", "content": None, "tool_calls": []},
                            {"role": "user", "content": "And of France?"}])
    assert again.choices[0].message.content


def test_tokenize_and_detokenize_take_what_asks_for_nothing(cluster):
    plain = cluster.post("/tokenize", {"content": "Hello world"})[1]
    neutral = {"model": "", "prompt": None, "add_special": None, "with_pieces": False, "return_token_strs": False, "tools": [],
               "tool_choice": "none", "mirostat": 0, "chat_template_kwargs": {}, "stop": "", "stream_options": None,
               "response_format": {"type": "text"}, "user": "someone", "metadata": {"a": "b"}, "nobody_knows": None}
    assert cluster.post("/tokenize", {"content": "Hello world", **neutral})[1] == plain
    back = cluster.post("/detokenize", {"tokens": plain["tokens"]})[1]
    assert cluster.post("/detokenize", {"tokens": plain["tokens"], **neutral})[1] == back
    assert cluster.post("/detokenize", {"tokens": [], **neutral})[1]["content"] == ""


def test_minus_one_is_no_limit_and_top_p_0_is_greedy(client, cluster):
    prompt = "<|im_start|>user\nCount from 1 to 15.<|im_end|>\n<|im_start|>assistant\n"
    r = client.completions.create(model="smollm2", prompt=prompt, max_tokens=-1, temperature=0)
    assert r.usage.completion_tokens > 16 and r.choices[0].finish_reason == "stop"  # 16 is what leaving it out means
    greedy = cluster.complete("My favourite colour is", max_tokens=8)["choices"][0]["text"]
    assert cluster.complete("My favourite colour is", max_tokens=8, temperature=1.5, top_p=0)["choices"][0]["text"] == greedy


def test_models(client):
    assert [m.id for m in client.models.list()] == ["smollm2"]
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_a_model_is_found_by_the_names_that_requests_may_use(cluster, tmp_path):
    assert json.loads(cluster.get("/v1/models/smol%6cm2")[1])["id"] == "smollm2"
    assert cluster.get("/v1/models/org%2Fgpt-9")[0] == cluster.post("/v1/completions", {"prompt": "x", "model": "org/gpt-9"})[0] == 404
    with Cluster(tmp_path, prefill=0, coordinator={"any_model": True}) as c:
        for path in ("org/gpt-9", "org%2Fgpt-9"):
            code, body = c.get("/v1/models/" + path)
            assert code == 200 and json.loads(body)["id"] == "smollm2"
        assert c.complete("x", model="org/gpt-9", max_tokens=1)["model"] == "smollm2"


def test_a_model_may_be_called_as_on_a_hub(tmp_path):
    name = "HuggingFaceTB/SmolLM2-135M"
    with Cluster(tmp_path, models=[{"name": name, "path": str(MODEL)}], node={"model": name}) as c:
        for path in (name, name.replace("/", "%2F")):
            code, body = c.get("/v1/models/" + path)
            assert code == 200 and json.loads(body)["id"] == name
        assert c.complete("x", model=name, max_tokens=2)["model"] == name
        for wrong in ("SmolLM2-135M", "HuggingFaceTB", "HuggingFaceTB//SmolLM2-135M", "huggingfacetb/SmolLM2-135M"):
            assert c.get("/v1/models/" + wrong)[0] == 404
            assert c.post("/v1/completions", {"prompt": "x", "model": wrong})[0] == 404
        assert f'model="{name}"' in c.get("/metrics")[1].decode()


def test_one_token_from_the_prefill_node_alone(cluster):
    r = cluster.complete("The capital of France is", max_tokens=1)
    assert r["usage"]["completion_tokens"] == 1 and r["choices"][0]["finish_reason"] == "length"
