/* pretok_table.c - the pre-tokenisers that GGUF files name in tokenizer.ggml.pre: their splits, and
 * what else the name implies (NFC, whole-word look-up, begin token). Data only; the compiled form
 * is pretok.c's. Non-ASCII characters stand as \x{} because an editor's normalisation would turn
 * some ranges round.
 *
 * A name that is not here is a load error elsewhere: a wrong split gives plausible, wrong tokens.
 */
#include "model/pretok.h"

#include <string.h>

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(number)                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number                           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK_LLM "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

/* O200K: words may start with upper-case letters U and go on with lower-case ones W */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CLITIC "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define O200K(u, w, clitic, number, tail)                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" u "*" w "+" clitic "|[^\\r\\n\\p{L}\\p{N}]?" u "+" w "*" clitic       \
    "|" number "| ?[^\\s\\p{L}\\p{N}]+" tail "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define NOT_HAN(c) "(?:(?!\\p{Han})" c ")"

/* Cased letters of the table that deepseek-llm's tokenizer was made with; newer Unicode versions
 * have more. */
#define CASED                                                                                      \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{"    \
    "293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}"                                                       \
    "\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"  \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}"                                                           \
    "\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}"  \
    "\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                                                       \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{"   \
    "1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"                                                  \
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{"     \
    "1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"                                                  \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{"   \
    "1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                                                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{"     \
    "212D}\\x{212F}-\\x{2134}\\x{2139}"                                                            \
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{"     \
    "2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}"                                                  \
    "\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{"    \
    "A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                                                           \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{"  \
    "1044F}\\x{104B0}-\\x{104D3}"                                                                  \
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{"     \
    "1E900}-\\x{1E943}"

const char pretok_gpt2_pattern[] = GPT2;

static const char *const gpt2[] = {GPT2, NULL};
static const char *const digits_gpt2[] = {"\\p{N}", GPT2, NULL};
static const char *const llama3[] = {LLAMA3("\\p{N}{1,3}"), NULL};
static const char *const qwen2[] = {LLAMA3("\\p{N}"), NULL};
static const char *const qwen35[] = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}"
                                     "\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
                                     "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
                                     NULL};
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    "\\s?[" CASED "]+",
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
    "\\s+$",
    CJK_LLM,
    "\\p{N}+",
    NULL};
static const char *const deepseek_coder[] = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                                             CJK_LLM,    "\\p{N}",      NULL};
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    NULL};
static const char *const o200k[] = {O200K(UPPER, LOWER, CLITIC, "\\p{N}{1,3}", "[\\r\\n/]*"), NULL};
static const char *const tekken[] = {O200K(UPPER, LOWER, "", "\\p{N}", "[\\r\\n/]*"), NULL};
static const char *const kimi_k2[] = {
    "\\p{Han}+|" O200K(NOT_HAN(UPPER), NOT_HAN(LOWER), CLITIC, "\\p{N}{1,3}", "[\\r\\n]*"), NULL};
static const char *const bailingmoe[] = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{"
                                         "N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
                                         "|\\s+(?!\\S)|\\s+",
                                         NULL};
static const char *const falcon[] = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]", NULL};

/* Where several names share their splits, the first one is what a writer states. */
static const struct pretok_known known[] = {
    {"gpt-2", gpt2, false, false, false},
    {"mpt", gpt2, false, false, false},
    {"smollm", digits_gpt2, false, false, false},
    {"starcoder", digits_gpt2, false, false, false},
    {"refact", digits_gpt2, false, false, false},
    {"command-r", digits_gpt2, false, false, false},
    {"llama-bpe", llama3, false, true, true},
    {"llama3", llama3, false, true, true},
    {"glm4", llama3, false, false, false},
    {"qwen2", qwen2, true, false, false},
    {"qwen35", qwen35, true, false, false},
    {"deepseek-llm", deepseek_llm, false, false, false},
    {"deepseek-coder", deepseek_coder, false, false, false},
    {"deepseek-v3", deepseek_v3, false, false, false},
    {"gpt-4o", o200k, false, false, false},
    {"o200k", o200k, false, false, false},
    {"tekken", tekken, false, true, true},
    {"kimi-k2", kimi_k2, false, false, false},
    {"bailingmoe", bailingmoe, false, false, false},
    {"falcon", falcon, false, false, false},
};

const struct pretok_known *pretok_by_name(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            return &known[i];
    return NULL;
}

const struct pretok_known *pretok_by_patterns(const struct pretok *p, bool nfc, bool ignore_merges)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].nfc != nfc || known[i].ignore_merges != ignore_merges)
            continue;
        size_t k = 0;
        while (known[i].patterns[k] != NULL && pretok_step_is(p, k, known[i].patterns[k]))
            k++;
        if (known[i].patterns[k] == NULL && k == pretok_steps(p))
            return &known[i];
    }
    return NULL;
}
