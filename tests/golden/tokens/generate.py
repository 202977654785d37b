"""Writes the expectations of this folder with independent tokenizers: Hugging Face's `tokenizers` for byte-level
BPE and the pre-tokenizers, Google's `sentencepiece` for SPM.

    pip install tokenizers sentencepiece gguf
    python generate.py SmolLM2-135M-Instruct.Q4_1.gguf
"""
import io
import json
import pathlib
import random
import sys
import unicodedata

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

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


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+%s|" + r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*%s"
O200K_TAIL = r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
}


def splitter(patterns):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns])


def save(name, value):
    text = json.dumps(value, separators=(",", ":"))
    (HERE / name).write_text(text.replace("},{", "},\n{") + "\n")


def splits():
    texts = strings(2, 200)
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


if __name__ == "__main__":
    splits()
    spm()
    smollm(sys.argv[1])
