"""Writes the expectations of this folder with independent tokenizers: Hugging Face's `tokenizers` for byte-level
BPE and the pre-tokenizers, Google's `sentencepiece` for SPM, llama.cpp for what is known only by a family's name.

    pip install tokenizers sentencepiece gguf llama-cpp-python
    python generate.py SmolLM2-135M-Instruct.Q4_1.gguf
"""
import io
import json
import pathlib
import random
import sys
import tempfile
import unicodedata

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

ATOMS = [
    "Hello", "world", "don't", "I'LL", "we've", "'s", "'\u017f", "'S", "na\u00efve", "stra\u00dfe", "Ελλάδα", "Привет",
    "שלום", "مرحبا", "नमस्ते", "สวัสดี", "日本語", "漢字かな", "한국어", "中文，测试。", "👩‍👩‍👧‍👦", "🇫🇷", "😀", "e\u0301",
    "ﬁ", "Ǆ", "ẞ", "İ", "0", "7", "42", "123", "1234", "1234567", "٣٤", "½", "Ⅷ", "²", "３", "௧", " ", "  ", "   ",
    "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u3000", "\u200b", "\u180e", "\u2028", "\u2029", "\u0085",
    "\x1c", "\x0b", "\x0c", "\u202f", "\ufeff", "\x00", "\x01", "\x7f", ".", "...", "!?", "—", "“", "”", "$", "€", "+=",
    "<=>", "^~|", "`", "_", "__init__", "#include <a.h>", "http://a.b/c?d=e&f", "<|im_start|>", "<|im_end|>",
    "<|endoftext|>", "<|im_", "im_end|>", "<s>", "</s>", "{}[]()", "\\n", '"q"', "a", "A", "z", "Ω", "ǆ", "\u0301",
    "\U0001d400", "\U0010fffd", "\ue000", "𠀀", "ａｂ", "camelCase", "SHOUT", "x=1;", "for(i=0;i<10;i++)", "/*", "*/",
    "@user", "#tag", "1.5e-3", "12:30", "2024-01-31", "'", "''", "' s", "'re", "'D", "'m", "'T",
]

# For patterns that came later: what was drawn before stays as it was.
MORE_ATOMS = [
    "1234567abc", "12345_", "٣٤٥٦٧", "1234½", "½1234", "x 1234567.", "<sentinel:12>", "IMGIMGABZ", "        ", " a b c d",
    "漢字1234かな", "漢ABC字def", "！？…", "ㄅㄆ", "가나다ㄱ", "नमस्ते दुनिया", "é\u0301té", "one  two   three    four", "a" + " " * 70 + "b",
    "Don'T", "123456", "12345678901234567890", "a.b,c!", "١٢٣٤", "𐐀𐐨", "ªº", "1,234,567.89", "  1", "\n\n\n", "a\n b",
]

PLANES = [(0x20, 0x7F), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000), (0x20, 0x21), (0x0A, 0x0B)]


def any_char(rnd):
    """An assigned code point: the classes of others depend on the Unicode version of the library."""
    while True:
        c = chr(rnd.randrange(*rnd.choice(PLANES)))
        if unicodedata.category(c) != "Cn":
            return c


def strings(seed, n):
    rnd = random.Random(seed)
    out = list(ATOMS)
    out += ["".join(rnd.choice(ATOMS) for _ in range(rnd.choice([2, 3, 4, 6, 10]))) for _ in range(n)]
    out += ["".join(any_char(rnd) for _ in range(rnd.randrange(1, 25))) for _ in range(n // 4)]
    return out


def more_strings(seed, n):
    rnd = random.Random(seed)
    atoms = ATOMS + 3 * MORE_ATOMS
    return MORE_ATOMS + ["".join(rnd.choice(atoms) for _ in range(rnd.choice([2, 3, 4, 6]))) for _ in range(n)]


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+%s|" + r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*%s"
O200K_TAIL = r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
HAN = r"[\p{Han}]+"
KIMI_1 = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
KIMI_2 = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
             r""" ?[\p{P}\p{S}]+""")
O200K = CASED % (CONTRACTIONS + "?", CONTRACTIONS + "?") + O200K_TAIL
NO_SENTENCE = " ?[^(\\s|.,!?…。，、।۔،)]+"
HALVINGS = "".join(r"\s{%d}(?!\S)|" % n for n in (512, 256, 128, 64, 32, 16, 8, 4))
PATTERNS = {  # as the models' tokenizer.json files have them
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "smollm": [r"\p{N}", GPT2],
    "gpt-2": [GPT2],
    "llama-bpe": [CL100K % r"\p{N}{1,3}"],
    "qwen2": [CL100K % r"\p{N}"],
    "tekken": [CASED % ("", "") + O200K_TAIL % r"\p{N}"],
    "gpt-4o": [CASED % (CONTRACTIONS + "?", CONTRACTIONS + "?") + O200K_TAIL % r"\p{N}{1,3}"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"],
    "deepseek-v3": [
        r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
        r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""],
    "deepseek-llm": [
        r"[\r\n]", r"\s?[" + CASED_LETTERS + "]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$",
        "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}+"],
    "glm4": [CL100K % r"\p{N}{1,3}"],
    "qwen35": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", O200K % r"\p{N}{1,3}"],
    "kimi-k2": ["|".join([HAN, KIMI_1 + CONTRACTIONS + "?", KIMI_2 + CONTRACTIONS + "?", r"\p{N}{1,3}",
                          r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])],
    "youtu": ["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+", O200K % r"\p{N}"],
    "spark2_5": [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK3 + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "seed-coder": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "ufakzeka": [r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "laguna": [r"[^\n]+|[\n]+", CL100K % r"\p{N}"],
    "minicpm5": [r"\p{N}{1,3}", CL100K % r"\p{N}+"],
    "exaone-moe": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
                   r"|\s*[\r\n]|\s+(?!\S)|\s+"],
    "jais-2": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + HALVINGS
               + r"\s{1,2}(?!\S)|\s{1}"],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "bloom": [NO_SENTENCE],
    "viking": [NO_SENTENCE, r"\p{N}"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
                  r"[\p{P}!-/:-@\[-`{-~]", GPT2],
}


def splitter(patterns):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns])


def save(name, value):
    text = json.dumps(value, separators=(",", ":"))
    (HERE / name).write_text(text.replace("},{", "},\n{") + "\n")


def splits():
    texts = strings(2, 200) + more_strings(5, 120)
    pieces = {}
    for name, patterns in PATTERNS.items():
        s = splitter(patterns)
        pieces[name] = [[len(p.encode()) for p, _ in s.pre_tokenize_str(t)] for t in texts]
    save("splits.json", {"texts": texts, "pieces": pieces})


def smollm(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    plain = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    plain.pre_tokenizer = pre
    special = Tokenizer.from_str(plain.to_str())
    special.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    cases = []
    for text in strings(1, 250):
        for parse, tok in ((False, plain), (True, special)):
            ids = tok.encode(text, add_special_tokens=False).ids
            if not parse or ids != cases[-1]["ids"]:
                cases.append({"text": text, "special": parse, "ids": ids})
    save("smollm.json", cases)


CORPUS = """The relay hands the baton from one runner to the next, and the next runner runs on.
A cache keeps what was computed so that nobody has to compute it again; a block is a small part of a cache.
When the runner is tired the team is not: another runner takes the baton, the race goes on, nothing is lost.
Der Läufer übergibt den Stab; le coureur passe le témoin; бегун передаёт палочку; 走者はバトンを渡す。
for (i = 0; i < n; i++) { sum += a[i] * b[i]; }   return sum;
1 2 3 10 20 30 100 200 300 1000 2000 3000 1984 2024
running runs runner ran run; hand hands handed handing; compute computes computed computing computer
the then there their them these those this that than thank think thing nothing something anything everything
""" * 4


def spm():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()), model_writer=model, model_type="bpe", vocab_size=560,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.99, split_digits=True, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    n = sp.vocab_size()

    def kind(i):
        return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1

    vocab = {"kind": "llama", "tokens": [sp.id_to_piece(i) for i in range(n)], "types": [kind(i) for i in range(n)],
             "scores": [sp.get_score(i) for i in range(n)], "bos": 1, "eos": 2, "unk": 0, "add_bos": True,
             "add_eos": False, "add_space_prefix": True}
    rnd = random.Random(3)
    words = CORPUS.split() + [" ", "  ", "\n", "   "]
    texts = ["".join(rnd.choice(words) + rnd.choice(["", " ", " "]) for _ in range(rnd.randrange(1, 12))) for _ in range(120)]
    # SentencePiece takes U+0000 for the end of its input
    texts += [t for t in strings(4, 60) if "\0" not in t] + [" ", "  ", "\u2581", "a\u2581b"]
    save("spm.json", {"vocab": vocab, "cases": [{"text": t, "ids": sp.encode(t)} for t in texts]})


def train_spm(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()), model_writer=model, model_type="bpe", vocab_size=520,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.99, split_digits=True, minloglevel=2, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def spm_vocab(sp, control=(), defined=(), **more):
    """With further tokens behind the model's own: control tokens, and texts that are found before all else."""
    n = sp.vocab_size()
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in range(n)]
    return {"kind": "llama", "tokens": [sp.id_to_piece(i) for i in range(n)] + list(control) + list(defined),
            "types": types + [3] * len(control) + [4] * len(defined),
            "scores": [sp.get_score(i) for i in range(n)] + [0.0] * (len(control) + len(defined)),
            "bos": 1, "eos": 2, "unk": 0, "add_bos": True, "add_eos": False, **more}


def text_bpe_vocab():
    """As gemma4 has it: merges of characters, a space is U+2581, bytes as the last resort, runs of line ends."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tok.train_from_iterator([CORPUS.replace(" ", "\u2581")], trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(tok.to_str())["model"]
    learned = sorted((t for t in model["vocab"] if "\n" not in t), key=model["vocab"].get)
    special, data = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"], [f"<0x{i:02X}>" for i in range(256)]
    tokens = special + data + ["\n" * n for n in (1, 2, 3)] + learned
    return {"kind": "gemma4", "pre": "gemma4", "tokens": tokens,
            "types": [3] * len(special) + [6] * 256 + [1] * (len(learned) + 3), "scores": [0.0] * len(tokens),
            "merges": [" ".join(m) if isinstance(m, list) else m for m in model["merges"] if "\n" not in "".join(m)],
            "bos": 2, "eos": 1, "unk": 3, "add_bos": True, "add_eos": False}


def llama_cpp(vocab, arch, name, texts):
    import llama_cpp
    with tempfile.TemporaryDirectory() as tmp:
        path = f"{tmp}/vocab.gguf"
        w = gguf.GGUFWriter(path, arch)
        w.add_name(name)
        w.add_tokenizer_model(vocab["kind"])
        if "pre" in vocab:
            w.add_tokenizer_pre(vocab["pre"])
        w.add_token_list(vocab["tokens"])
        w.add_token_types(vocab["types"])
        w.add_token_scores(vocab["scores"])
        if "merges" in vocab:
            w.add_token_merges(vocab["merges"])
        w.add_bos_token_id(vocab["bos"])
        w.add_eos_token_id(vocab["eos"])
        w.add_unk_token_id(vocab["unk"])
        w.add_add_bos_token(vocab["add_bos"])
        if "add_space_prefix" in vocab:
            w.add_add_space_prefix(vocab["add_space_prefix"])
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
        return [{"text": t, "special": s, "ids": model.tokenize(t.encode(), add_bos=True, special=s)}
                for t in texts for s in (False, True)]


def families():
    rnd = random.Random(6)
    words = CORPUS.split() + [" ", "  ", "\n", "\n\n", "\n\n\n\n", "   ", "\t", "\u2581", "<b>", "</b>", "é", "走", "☃", "👩‍👩‍👧"]
    special = ["<|user|>", "<|end|>", "<|assistant|>", "</s>", "<s>", "<|endoftext|>", "<|turn>", "<turn|>", "<bos>"]
    texts = ["".join(rnd.choice(words + special) + rnd.choice(["", " ", " ", "\n"]) for _ in range(rnd.randrange(1, 9)))
             for _ in range(60)] + ["", " ", "\n", "<|user|>\nthe race<|end|>\n<|assistant|>\n"]
    plain, prefixed = train_spm(add_dummy_prefix=False), train_spm()
    rows = [
        ("gemma3", "gemma", spm_vocab(plain, control=["<|turn>", "<turn|>"], defined=["\n\n", "  ", "<b>", "</b>"],
                                      add_space_prefix=False)),
        ("phi3", "phi-3", spm_vocab(prefixed, control=["<|user|>", "<|end|>", "<|assistant|>", "<|endoftext|>"],
                                    add_space_prefix=True, strip_after_special=True)),
        ("gemma4", "gemma4", text_bpe_vocab()),
    ]
    save("families.json", [{"arch": arch, "vocab": vocab, "cases": llama_cpp(vocab, arch, name, texts)}
                           for arch, name, vocab in rows])


if __name__ == "__main__":
    splits()
    spm()
    families()
    smollm(sys.argv[1])
