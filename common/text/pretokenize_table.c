/* pretokenize_table.c - the patterns of each family of tokenizers, as the models' own files have them. */
#include "text/pretokenize_table.h"

#include <string.h>

/* White space is Unicode's property, spelled out: PCRE2's \s would add U+180E to it. */
#define WS_SET                                                                                                         \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"                       \
    "\\x{3000}"
#define WS            "[" WS_SET "]"
#define LAST_OF_RUN   "(?![^" WS_SET "])"
#define SPACES        WS "+" LAST_OF_RUN "|" WS "+" /* a run's last space belongs to the word after it */
#define NEWLINES      WS "*[\\r\\n]+"
#define ONE_NEWLINE   WS "*[\\r\\n]"
#define CONTRACTIONS  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD          "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define MARKED_WORD   "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+"
#define SYMBOLS       " ?[^" WS_SET "\\p{L}\\p{N}]+"
#define UPPER         "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_1       "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+"
#define CASED_2       "[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*"
#define NOT_HAN       "(?!\\p{sc:Han})"
#define NOT_HAN_1     "[^\\r\\n\\p{L}\\p{N}]?(?:" NOT_HAN UPPER ")*(?:" NOT_HAN LOWER ")+"
#define NOT_HAN_2     "[^\\r\\n\\p{L}\\p{N}]?(?:" NOT_HAN UPPER ")+(?:" NOT_HAN LOWER ")*"
#define HAN_AND_KANA  "\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}"
#define HAN_OR_HANGUL "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"
#define ASCII_PUNCT   "!-/:-@\\[-`{-~"
#define LINES         "[^\\n]+|\\n+"
#define NO_SENTENCE   " ?[^(" WS_SET "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

#define GPT2               "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SYMBOLS "|" SPACES
#define AFTER_WORD(digits) digits "|" SYMBOLS "[\\r\\n]*|" NEWLINES "|" SPACES
#define CL100K(digits)     CONTRACTIONS "|" WORD "|" AFTER_WORD(digits)
#define O200K_TAIL(digits) digits "|" SYMBOLS "[\\r\\n/]*|" NEWLINES "|" SPACES
#define O200K(digits)      CASED_1 CONTRACTIONS "?|" CASED_2 CONTRACTIONS "?|" O200K_TAIL(digits)
#define DEEPSEEK3_WORD     "[" ASCII_PUNCT "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define DEEPSEEK3          DEEPSEEK3_WORD "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" NEWLINES "|" SPACES

/* Letters that have a case, in the Unicode version of its maker: deepseek-llm. */
#define CASED_LETTERS                                                                                                  \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"                    \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"             \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"                    \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                  \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"                  \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"          \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"         \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"                   \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"                    \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"                    \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"                   \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                  \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"                \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                             \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

/* Runs of white space in powers of two. */
#define RUN_OF(n) WS "{" n "}" LAST_OF_RUN "|"
#define WS_HALVINGS                                                                                                    \
    RUN_OF("512") RUN_OF("256") RUN_OF("128") RUN_OF("64") RUN_OF("32") RUN_OF("16") RUN_OF("8") RUN_OF("4")

static const struct pretokenize_row rows[] = {
    { "default", { "[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", { "\\p{N}", GPT2 } },
    { "gpt-2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de gigachat exaone4 trillion granite-docling "
      "mellum "
      "modern-bert a.x-4.0",
      { GPT2 } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 jina-v5-nano",
      { CL100K("\\p{N}{1,3}") },
      .ignores_merges = true,
      .adds_bos = true },
    { "dbrx smaug-bpe glm4 chatglm-bpe", { CL100K("\\p{N}{1,3}") } },
    { "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 solar-open kormo f2llmv2", { CL100K("\\p{N}") } },
    { "qwen35",
      { CONTRACTIONS "|" MARKED_WORD "|\\p{N}| ?[^" WS_SET "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES "|" SPACES } },
    { "tekken", { CASED_1 "|" CASED_2 "|" O200K_TAIL("\\p{N}") }, .ignores_merges = true, .adds_bos = true },
    { "gpt-4o llama4 minimax-m2 kanana2 talkie", { O200K("\\p{N}{1,3}") } },
    { "tiny_aya cohere2moe", { PRETOKENIZE_THREES_OF_WORDS, O200K("\\p{N}{1,3}") } },
    { "kimi-k2",
      { "\\p{sc:Han}+|" NOT_HAN_1 CONTRACTIONS "?|" NOT_HAN_2 CONTRACTIONS "?|" AFTER_WORD("\\p{N}{1,3}") } },
    { "youtu",
      { "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|"
        "[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}"
        "\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|[" HAN_AND_KANA "]+",
        O200K("\\p{N}") },
      .ignores_merges = true },
    { "falcon", { "[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]" } },
    { "deepseek-llm",
      { "[\\r\\n]", WS "?[" CASED_LETTERS "]+",
        WS "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", WS "+$",
        HAN_OR_HANGUL, "\\p{N}+" } },
    { "deepseek-coder", { "[\\r\\n]", WS "?\\p{L}+", WS "?\\p{P}+", HAN_OR_HANGUL, "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense joyai-llm hy_v4", { "\\p{N}{1,3}", "[" HAN_AND_KANA "]+", DEEPSEEK3 } },
    { "spark2_5",
      { "\\p{N}{1,3}", "[" HAN_AND_KANA "]+", DEEPSEEK3_WORD "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" SPACES, "\\p{N}" } },
    { "bailingmoe bailingmoe2 llada-moe",
      { CONTRACTIONS "|" WORD "|\\p{N}|" SYMBOLS "[\\r\\n]*|" ONE_NEWLINE "|" SPACES } },
    { "seed-coder", { CONTRACTIONS "|" WORD "|\\p{N}| ?[^" WS_SET "\\p{L}\\p{N}\\r\\n]+|" NEWLINES "|" SPACES } },
    { "ufakzeka", { WORD "|" AFTER_WORD("\\p{N}") } },
    { "laguna", { LINES, CL100K("\\p{N}") } },
    { "minicpm5", { "\\p{N}{1,3}", CL100K("\\p{N}+") }, .ignores_merges = true },
    { "exaone-moe", /* words that one space parts stay together */
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}[\\p{L}\\p{M}]*+(?: \\p{L}[\\p{L}\\p{M}]*+)*+|\\p{N}|" SYMBOLS
                     "[\\r\\n/]?|" ONE_NEWLINE "|" SPACES } },
    { "jais-2",
      { CONTRACTIONS "|" WORD "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n]*|" NEWLINES "|" WS_HALVINGS WS "{1,2}" LAST_OF_RUN
                     "|" WS } },
    { "superbpe", { "\\p{N}+", PRETOKENIZE_THREES } },
    { "bloom poro-chat gpt3-finnish", { NO_SENTENCE } },
    { "viking", { NO_SENTENCE, "\\p{N}" } },
    { "chameleon",
      { "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}" ASCII_PUNCT "]", GPT2 },
      .adds_bos = true },
    { "gemma4", { LINES }, .adds_bos = true, .is_text = true },
    { "sarvam-moe", { LINES }, .is_text = true },
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static bool has_name(const char *names, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t word = strcspn(p, " ");
        if (word == n && memcmp(p, name, n) == 0) return true;
        p += word;
    }
    return false;
}

const struct pretokenize_row *pretokenize_row_of(const char *name)
{
    if (*name == '\0') return &rows[0];
    for (size_t i = 0; i < N_ROWS; i++) {
        if (has_name(rows[i].names, name)) return &rows[i];
    }
    return NULL;
}

const struct pretokenize_row *pretokenize_row_at(size_t i)
{
    return i < N_ROWS ? &rows[i] : NULL;
}
