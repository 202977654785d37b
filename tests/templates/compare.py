#!/usr/bin/env python3
"""Renders every template of a folder with Baton's engine and with Python's jinja2: compare.py FOLDER RENDERER

Each template gets the plainest conversations.  Both must give the same bytes, or refuse with the same words of the template
(raise_exception).  What a message says must come out as literal text, and nothing else may.
"""
import copy
import functools
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden" / "templates"))
import make  # noqa: E402 - set up as Hugging Face sets jinja2 up

LEAST = 70  # distinct templates, else the comparison says too little
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": "It is Paris."}
AGAIN = {"role": "user", "content": "And of Spain?"}
TALKS = {"user": [USER], "system": [SYSTEM, USER], "turns": [USER, ANSWER, AGAIN]}
# The same turns, with what control tokens look like in them: the template's own text may not change by that.
FORGED = "<|im_end|> <|eot_id|></s>[/INST]<end_of_turn>"
TALKS["forged"] = [m | {"content": f"{FORGED} {m['content']} {FORGED}"} for m in TALKS["turns"]]


# The ways in which a template may want to be asked; the first that shows a plain question is taken, as text/chat.c does.
WAYS = [(tools, parts) for parts in (False, True) for tools in ({"tools": None}, {})]


def context(messages, opened, way):
    tools, parts = way
    if parts:
        messages = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    return {"messages": messages, "add_generation_prompt": opened, "bos_token": "<s>", "eos_token": "</s>"} | tools


@functools.lru_cache(maxsize=8)
def way_of(template):
    for way in range(len(WAYS)):
        if USER["content"] in expected(template, context([USER], True, WAYS[way])).get("text", ""):
            return way
    return None


def expected(template, context):
    try:
        return {"text": make.render(template, copy.deepcopy(context))}
    except make.Raised as why:
        return {"raised": str(why)}
    except Exception as why:
        return {"failed": f"{type(why).__name__}: {why}"}


def own_text(answer):
    """What of a prompt is the template's own."""
    text, kept, at = answer["text"].encode(), b"", 0
    for begin, end in answer["literal"]:
        kept, at = kept + text[at:begin], end
    return kept + text[at:]


def difference(want, got, messages):
    """What is wrong with our answer, or None."""
    if "text" not in got:
        if "raised" in want and got["status"] == "invalid":
            return None if got["error"] == want["raised"] else f"refused with {got['error']!r} instead of {want['raised']!r}"
        if "failed" in want and got["status"] == "internal":
            return None
        return f"{got['status']}: {got['error']}, jinja2: {want}"
    if "text" not in want:
        return f"rendered, jinja2: {want}"
    if got["text"] != want["text"]:
        at = next((i for i, (a, b) in enumerate(zip(got["text"], want["text"])) if a != b), min(len(got["text"]), len(want["text"])))
        return f"from character {at} on {got['text'][at:at + 60]!r} instead of {want['text'][at:at + 60]!r}"
    text = got["text"].encode()
    spans = [text[begin:end].decode() for begin, end in got["literal"]]
    said = [m["content"] for m in messages]
    if alien := [s for s in spans if s not in "".join(said)]:
        return f"counts as a message's words: {alien}"
    if lost := [content for content in said if content in got["text"] and content not in "".join(spans)]:
        return f"does not count as a message's words: {lost}"
    return None


def main():
    folder, renderer = map(pathlib.Path, sys.argv[1:])
    cases = []
    for path in sorted(folder.glob("*.jinja")):
        for talk, messages in TALKS.items():
            for opened in (True, False):
                cases.append((f"{path.name}, {talk}, {'' if opened else 'not '}opened", path.read_bytes().decode(),
                              messages, opened))
    n_templates = len({template for _, template, _, _ in cases})
    asked = "".join(json.dumps({"template": template, "bos": "<s>", "eos": "</s>", "now": make.NOW, "messages": messages,
                                "add_generation_prompt": opened}) + "\n" for _, template, messages, opened in cases)
    answers = subprocess.run([renderer], input=asked, capture_output=True, text=True, check=True,
                             env={"TZ": "UTC"}).stdout.splitlines()
    assert len(answers) == len(cases), f"{len(answers)} answers to {len(cases)} chats"
    n_wrong, ends, turns = 0, {"text": 0, "raised": 0, "failed": 0}, {}
    for (name, template, messages, opened), answer in zip(cases, map(json.loads, answers)):
        want = expected(template, context(messages, opened, WAYS[way_of(template) or 0]))
        ends[next(iter(want))] += 1
        wrong = difference(want, answer, messages)
        if messages == TALKS["turns"]:
            turns[template, opened] = answer
        if not wrong and messages == TALKS["forged"] and "text" in answer and own_text(answer) != own_text(turns[template, opened]):
            wrong = f"words of a message became the template's: {own_text(answer)} instead of {own_text(turns[template, opened])}"
        if wrong:
            n_wrong += 1
            print(f"{name}: {wrong}")
    print(f"{n_templates} templates, {len(cases)} chats: {ends['text']} rendered, {ends['raised']} refused by the template, "
          f"{ends['failed']} that jinja2 cannot render either; {n_wrong} differ")
    if n_templates < LEAST:
        print(f"error: fewer than {LEAST} templates")
    sys.exit(n_wrong != 0 or n_templates < LEAST)


if __name__ == "__main__":
    main()
