// SPDX-License-Identifier: MIT
// Text of tokens as it is shown: stop strings over the borders of tokens, and whole characters only.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_random.h"
#include "tools/text_stream.h"
#include "tools/utf8.h"

enum { SHOWN_MAX = 256 };

typedef struct shown {
    char text[SHOWN_MAX];
    size_t size;
} shown;

static void take(text_stream *s, bool all, shown *out) {
    size_t size;
    const char *next = text_stream_take(s, all, &size);
    assert_true(out->size + size < SHOWN_MAX);
    assert_true(all || utf8_valid(next, size));
    memcpy(out->text + out->size, next, size);
    out->size += size;
    out->text[out->size] = '\0';
}

// Adds the text in tokens of `step` bytes and expects to see `want` in the end, and never more.
static void expect_shown(const char *const *stops, size_t n_stops, const char *text, size_t step, const char *want) {
    text_stream s = {.stops = stops, .n_stops = n_stops};
    shown out = {.size = 0};
    for (size_t at = 0, size = strlen(text); at < size; at += step) {
        assert_true(text_stream_add(&s, text + at, size - at < step ? size - at : step));
        take(&s, false, &out);
        assert_memory_equal(out.text, want, out.size);
        if (s.stopped) break;
    }
    take(&s, true, &out);
    assert_string_equal(out.text, want);
    assert_int_equal(s.size, strlen(want));
    text_stream_free(&s);
}

static void a_stop_string_is_never_shown_however_tokens_cut_it(void **unused) {
    (void)unused;
    static const char *const stops[] = {"END", "\n\n", "aab"};
    for (size_t step = 1; step < 12; step++) {
        expect_shown(stops, 3, "one END two", step, "one ");
        expect_shown(stops, 3, "ENEND", step, "EN");
        expect_shown(stops, 3, "ENENDEND", step, "EN");
        expect_shown(stops, 3, "a\nb\n\nc", step, "a\nb");
        expect_shown(stops, 3, "aaaab", step, "aa");
        expect_shown(stops, 3, "no stop: EN", step, "no stop: EN");
        expect_shown(stops, 3, "END", step, "");
        expect_shown(stops, 0, "END", step, "END");
    }
}

static void of_several_stop_strings_in_one_token_the_first_in_the_text_counts(void **unused) {
    (void)unused;
    expect_shown((const char *const[]){"three", "two"}, 2, "one two three", 13, "one ");
    expect_shown((const char *const[]){"wo t", "two"}, 2, "one two three", 13, "one ");
}

static void characters_are_shown_whole(void **unused) {
    (void)unused;
    static const char *const stops[] = {"日本語"};
    for (size_t step = 1; step < 8; step++) {
        expect_shown(NULL, 0, "naïve 日本 🐦!", step, "naïve 日本 🐦!");
        expect_shown(stops, 1, "日本🐦日本語!", step, "日本🐦");
    }
    text_stream s = {.n_stops = 0};
    shown out = {.size = 0};
    assert_true(text_stream_add(&s, "\xF0\x9F\x90", 3));
    take(&s, false, &out);
    assert_int_equal(out.size, 0);
    size_t size;
    (void)text_stream_take(&s, true, &size);
    assert_int_equal(size, 3); // no more will come
    text_stream_free(&s);
}

static void random_texts_are_shown_up_to_their_first_stop_string(void **unused) {
    (void)unused;
    for (int round = 0; round < 20000; round++) {
        char text[24], stop[2][5], want[sizeof text];
        const char *const stops[] = {stop[0], stop[1]};
        for (size_t i = 0; i < sizeof text - 1; i++) text[i] = (char)('a' + random_below(2));
        text[sizeof text - 1] = '\0';
        size_t first = sizeof text - 1;
        for (size_t i = 0; i < 2; i++) {
            const size_t length = 1 + random_below(4);
            for (size_t k = 0; k < length; k++) stop[i][k] = (char)('a' + random_below(2));
            stop[i][length] = '\0';
        }
        // one byte at a time, the stop string that ends first counts, and of those the longest
        size_t ends = sizeof text;
        for (size_t i = 0; i < 2; i++) {
            const char *at = strstr(text, stops[i]);
            if (!at) continue;
            const size_t begin = (size_t)(at - text), end = begin + strlen(stops[i]);
            if (end < ends || (end == ends && begin < first)) {
                ends = end;
                first = begin;
            }
        }
        memcpy(want, text, first);
        want[first] = '\0';
        expect_shown(stops, 2, text, 1, want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_string_is_never_shown_however_tokens_cut_it),
        cmocka_unit_test(of_several_stop_strings_in_one_token_the_first_in_the_text_counts),
        cmocka_unit_test(characters_are_shown_whole),
        cmocka_unit_test(random_texts_are_shown_up_to_their_first_stop_string),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
