/* command: a table's rows are parsed, checked and printed; what is wrong is named with what is right. */
#include "config/command.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>

struct options {
    char *file, *word, *kind;
    uint32_t count, more;
    bool loud;
};

#define AT(field) offsetof(struct options, field)

static const struct config_option ROWS[] = {
    COMMAND_TEXT("file", "f", AT(file), "FILE", NULL, "a file"),
    COMMAND_TEXT("word", NULL, AT(word), "WORD", "", "a word"),
    COMMAND_CHOICE("kind", "k", AT(kind), "red|green", "green", "a colour"),
    COMMAND_NUMBER("count", "c", AT(count), 1, 9, "4", "a number"),
    COMMAND_NUMBER("more", NULL, AT(more), 1, 9, "", "another number"),
    COMMAND_SWITCH("loud", NULL, AT(loud), "a switch"),
};
static const struct command PLAIN = { "test plain", NULL, NULL, ROWS, sizeof(ROWS) / sizeof(ROWS[0]) };
static const struct command WITH_OPERANDS = { "test with", "[THING]...", "Says more.\n", ROWS,
                                              sizeof(ROWS) / sizeof(ROWS[0]) };

#define ARGS(...)                                                                                                      \
    (int)(sizeof((char *[]){ "test", __VA_ARGS__ }) / sizeof(char *)), (char *[])                                      \
    {                                                                                                                  \
        "test", __VA_ARGS__                                                                                            \
    }

Test(command, fills_fields_from_flags_and_defaults)
{
    struct options o = { 0 };
    cr_assert_eq(command_parse(&PLAIN, &o, ARGS("-f", "a.gguf"), NULL), -1);
    cr_assert(strcmp(o.file, "a.gguf") == 0 && !o.word && strcmp(o.kind, "green") == 0);
    cr_assert(o.count == 4 && o.more == 0 && !o.loud);
    command_free(&PLAIN, &o);
    cr_assert(!o.file && !o.kind);
    cr_assert_eq(command_parse(&PLAIN, &o, ARGS("--file=b", "--loud", "-c", "9", "--kind", "red", "-f", "b"), NULL),
                 -1);
    cr_assert(strcmp(o.file, "b") == 0 && strcmp(o.kind, "red") == 0 && o.count == 9 && o.loud);
    command_free(&PLAIN, &o);
}

Test(command, moves_operands_to_the_front)
{
    struct options o = { 0 };
    int n = 7;
    char *argv[] = { "test", "one", "-f", "--help", "two", "--count=2", "three" };
    cr_assert_eq(command_parse(&WITH_OPERANDS, &o, 7, argv, &n), -1);
    cr_assert_eq(n, 3);
    cr_assert(strcmp(argv[1], "one") == 0 && strcmp(argv[2], "two") == 0 && strcmp(argv[3], "three") == 0);
    cr_assert(strcmp(o.file, "--help") == 0 && o.count == 2, "a flag's value is no flag");
    command_free(&WITH_OPERANDS, &o);
}

Test(command, takes_all_words_behind_two_dashes_as_operands)
{
    struct options o = { 0 };
    int n = 7;
    char *argv[] = { "test", "-f", "a", "--", "--count", "--help", "--" };
    cr_assert_eq(command_parse(&WITH_OPERANDS, &o, 7, argv, &n), -1);
    cr_assert(n == 3 && o.count == 4);
    cr_assert(strcmp(argv[1], "--count") == 0 && strcmp(argv[2], "--help") == 0 && strcmp(argv[3], "--") == 0);
    command_free(&WITH_OPERANDS, &o);
}

static void expect_refused(int argc, char **argv, const char *says)
{
    struct options o = { 0 };
    char want[200], got[400] = "";
    cr_redirect_stderr();
    cr_assert_eq(command_parse(&PLAIN, &o, argc, argv, NULL), 2, "%s", says);
    cr_assert(!o.file && !o.kind, "nothing is left to free");
    fflush(stderr);
    FILE *f = cr_get_redirected_stderr();
    size_t n = fread(got, 1, sizeof(got) - 1, f);
    got[n] = '\0';
    snprintf(want, sizeof(want), "test plain: %s\n", says);
    cr_assert_str_eq(got, want);
}

#define REFUSED(name, says, ...)                                                                                       \
    Test(command_refuses, name)                                                                                        \
    {                                                                                                                  \
        expect_refused(ARGS(__VA_ARGS__), says);                                                                       \
    }

REFUSED(a_missing_option, "--file FILE is needed; --help says more", "--loud")
REFUSED(a_missing_value, "--count needs a value", "-f", "a", "--count")
REFUSED(a_number_out_of_range, "--count: \"10\" is not allowed; allowed: 1..9", "-f", "a", "-c", "10")
REFUSED(no_number, "--count: \"-1\" is not allowed; allowed: 1..9", "-f", "a", "--count=-1")
REFUSED(half_a_number, "--more: \"3x\" is not allowed; allowed: 1..9", "--more", "3x", "-f", "a")
REFUSED(another_word, "--kind: \"blue\" is not allowed; allowed: red, green", "-k", "blue", "-f", "a")
REFUSED(an_unknown_option, "unknown option --cuont; did you mean --count?", "-f", "a", "--cuont", "3")
REFUSED(an_unknown_letter, "unknown option -x; --help lists all", "-f", "a", "-x")
REFUSED(letters_in_one_word, "unknown option -c3; --help lists all", "-f", "a", "-c3")
REFUSED(a_letter_with_two_dashes, "unknown option --c; --help lists all", "-f", "a", "--c", "3")
REFUSED(two_values, "--count is given twice, as \"1\" and as \"2\"; give it once", "-f", "a", "-c", "1", "--count=2")
REFUSED(an_operand, "unexpected argument \"stray\"", "-f", "a", "stray")
REFUSED(an_empty_text, "--file: \"\" is not allowed; allowed: text", "-f", "")

Test(command, helps_when_help_is_the_last_word)
{
    struct options o = { 0 };
    cr_redirect_stdout();
    cr_assert_eq(command_parse(&WITH_OPERANDS, &o, ARGS("-f", "a", "--help"), NULL), 0);
    cr_assert_null(o.file);
}

Test(command, prints_its_table)
{
    struct options o = { 0 };
    char got[2000];
    cr_redirect_stdout();
    cr_assert_eq(command_parse(&WITH_OPERANDS, &o, ARGS("-f", "a", "-h", "--nonsense"), NULL), 0);
    cr_assert_null(o.file);
    fflush(stdout);
    size_t n = fread(got, 1, sizeof(got) - 1, cr_get_redirected_stdout());
    got[n] = '\0';
    cr_assert_str_eq(got, "usage: test with --file FILE [OPTION]... [THING]...\n"
                          "Says more.\n"
                          "  -f, --file FILE          a file\n"
                          "  --word WORD              a word\n"
                          "  -k, --kind VALUE         a colour (red, green, default green)\n"
                          "  -c, --count N            a number (1..9, default 4)\n"
                          "  --more N                 another number (1..9)\n"
                          "  --loud                   a switch\n");
}
