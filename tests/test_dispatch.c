// SPDX-License-Identifier: MIT
// CPU features and tiers from synthetic CPUID values, and the choice of variants for every tier.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/dispatch.h"

// ---- synthetic machines: registers as the manuals number the bits, written apart from cpuid.c --------------------

enum {
    XCR0_X87 = 1 << 0,
    XCR0_SSE = 1 << 1,
    XCR0_YMM = 1 << 2,
    XCR0_OPMASK = 1 << 5,
    XCR0_ZMM_HI256 = 1 << 6,
    XCR0_HI16_ZMM = 1 << 7,
    XCR0_LEGACY = XCR0_X87 | XCR0_SSE,
    XCR0_AVX = XCR0_LEGACY | XCR0_YMM,
    XCR0_AVX512 = XCR0_AVX | XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM
};

#define BIT(n) (UINT32_C(1) << (n))

static tern_cpuid_raw nehalem(void) {
    tern_cpuid_raw raw = {.vendor = "GenuineIntel", .brand = "  Synthetic CPU @ 2 GHz"};
    raw.leaf1_edx = BIT(25) | BIT(26);
    raw.leaf1_ecx = BIT(0) | BIT(9) | BIT(19) | BIT(20) | BIT(23);
    return raw;
}

static tern_cpuid_raw haswell(void) {
    tern_cpuid_raw raw = nehalem();
    raw.leaf1_ecx |= BIT(12) | BIT(27) | BIT(28) | BIT(29); // fma osxsave avx f16c
    raw.leaf7_ebx = BIT(3) | BIT(5) | BIT(8);               // bmi1 avx2 bmi2
    raw.ext1_ecx = BIT(5);                                  // lzcnt
    raw.xcr0 = XCR0_AVX;
    return raw;
}

static tern_cpuid_raw skylake_x(void) {
    tern_cpuid_raw raw = haswell();
    raw.leaf7_ebx |= BIT(16) | BIT(17) | BIT(30) | BIT(31); // avx512 f dq bw vl
    raw.xcr0 = XCR0_AVX512;
    return raw;
}

static tern_cpuid_raw cascade_lake(void) {
    tern_cpuid_raw raw = skylake_x();
    raw.leaf7_ecx |= BIT(11); // vnni
    return raw;
}

static tern_cpuid_raw ice_lake(void) {
    tern_cpuid_raw raw = cascade_lake();
    raw.leaf7_ecx |= BIT(1); // vbmi
    return raw;
}

static tern_tier best_of(tern_cpuid_raw raw) {
    tern_cpu cpu;
    tern_cpu_decide(&cpu, &raw);
    return cpu.best;
}

static void has(tern_cpuid_raw raw, const char *expected_features) {
    tern_cpu cpu;
    tern_cpu_decide(&cpu, &raw);
    assert_string_equal(cpu.features, expected_features);
}

#define LIST_SSE "sse2 ssse3 sse4.1 sse4.2 popcnt"
#define LIST_AVX2 LIST_SSE " avx f16c fma lzcnt bmi1 bmi2 avx2"
#define LIST_AVX512 LIST_AVX2 " avx512f avx512bw avx512dq avx512vl"

static void each_generation_gets_its_tier(void **state) {
    (void)state;
    assert_int_equal(best_of((tern_cpuid_raw){{0}, {0}, 0, 0, 0, 0, 0, 0}), TERN_TIER_SCALAR);
    assert_int_equal(best_of(nehalem()), TERN_TIER_SCALAR);
    assert_int_equal(best_of(haswell()), TERN_TIER_AVX2);
    assert_int_equal(best_of(skylake_x()), TERN_TIER_AVX512);
    assert_int_equal(best_of(cascade_lake()), TERN_TIER_AVX512VNNI);
    assert_int_equal(best_of(ice_lake()), TERN_TIER_AVX512VBMI);
}

static void features_are_listed_by_name(void **state) {
    (void)state;
    has(nehalem(), LIST_SSE);
    has(haswell(), LIST_AVX2);
    has(skylake_x(), LIST_AVX512);
    has(ice_lake(), LIST_AVX512 " avx512vnni avx512vbmi");
}

static void avx2_without_ymm_state_is_scalar(void **state) {
    (void)state;
    tern_cpuid_raw raw = haswell();
    raw.xcr0 = XCR0_LEGACY;
    assert_int_equal(best_of(raw), TERN_TIER_SCALAR);
    has(raw, LIST_SSE " lzcnt bmi1 bmi2");
    raw = ice_lake();
    raw.xcr0 = XCR0_LEGACY;
    assert_int_equal(best_of(raw), TERN_TIER_SCALAR);
}

static void xcr0_is_ignored_without_osxsave(void **state) {
    (void)state;
    tern_cpuid_raw raw = ice_lake();
    raw.leaf1_ecx &= ~BIT(27);
    assert_int_equal(best_of(raw), TERN_TIER_SCALAR);
}

static void avx512_without_any_part_of_its_state_is_avx2(void **state) {
    (void)state;
    static const uint64_t parts[] = {XCR0_OPMASK, XCR0_ZMM_HI256, XCR0_HI16_ZMM};
    for (size_t i = 0; i < 3; i++) {
        tern_cpuid_raw raw = ice_lake();
        raw.xcr0 &= ~parts[i];
        assert_int_equal(best_of(raw), TERN_TIER_AVX2);
        has(raw, LIST_AVX2);
    }
}

// Takes one bit out of a register and expects the tier below.
static void needs(tern_cpuid_raw (*machine)(void), size_t offset, unsigned bit, tern_tier without) {
    tern_cpuid_raw raw = machine();
    uint32_t value;
    memcpy(&value, (char *)&raw + offset, sizeof value);
    value &= ~BIT(bit);
    memcpy((char *)&raw + offset, &value, sizeof value);
    assert_int_equal(best_of(raw), without);
}

static void every_flag_that_files_are_compiled_with_is_needed(void **state) {
    (void)state;
    static const unsigned leaf1[] = {12, 23, 28, 29}, leaf7[] = {3, 5, 8}, avx512[] = {16, 17, 30, 31};
    for (size_t i = 0; i < 4; i++) needs(haswell, offsetof(tern_cpuid_raw, leaf1_ecx), leaf1[i], TERN_TIER_SCALAR);
    for (size_t i = 0; i < 3; i++) needs(haswell, offsetof(tern_cpuid_raw, leaf7_ebx), leaf7[i], TERN_TIER_SCALAR);
    needs(haswell, offsetof(tern_cpuid_raw, ext1_ecx), 5, TERN_TIER_SCALAR);
    for (size_t i = 0; i < 4; i++) needs(ice_lake, offsetof(tern_cpuid_raw, leaf7_ebx), avx512[i], TERN_TIER_AVX2);
    needs(ice_lake, offsetof(tern_cpuid_raw, leaf7_ecx), 11, TERN_TIER_AVX512);    // vnni
    needs(ice_lake, offsetof(tern_cpuid_raw, leaf7_ecx), 1, TERN_TIER_AVX512VNNI); // vbmi
}

static void avx512_without_the_avx2_flags_is_scalar(void **state) {
    (void)state;
    needs(ice_lake, offsetof(tern_cpuid_raw, leaf1_ecx), 12, TERN_TIER_SCALAR); // fma
}

static void a_missing_feature_is_named_with_who_lacks_it(void **state) {
    (void)state;
    tern_cpu cpu;
    char text[96];
    const tern_cpuid_raw old = haswell();
    tern_cpu_decide(&cpu, &old);
    tern_cpu_missing(&cpu, TERN_TIER_AVX512VBMI, text, sizeof text);
    assert_string_equal(text, "the CPU lacks avx512f");
    tern_cpu_missing(&cpu, TERN_TIER_AVX2, text, sizeof text);
    assert_string_equal(text, "");
    tern_cpuid_raw raw = ice_lake();
    raw.xcr0 = XCR0_AVX;
    tern_cpu_decide(&cpu, &raw);
    tern_cpu_missing(&cpu, TERN_TIER_AVX512, text, sizeof text);
    assert_string_equal(text, "the operating system does not save the registers of avx512f");
}

static void names_are_copied_without_leading_blanks(void **state) {
    (void)state;
    tern_cpu cpu;
    const tern_cpuid_raw raw = nehalem();
    tern_cpu_decide(&cpu, &raw);
    assert_string_equal(cpu.vendor, "GenuineIntel");
    assert_string_equal(cpu.model, "Synthetic CPU @ 2 GHz");
}

static void the_compiler_runtime_agrees_on_this_cpu(void **state) {
    (void)state;
    tern_cpu cpu;
    tern_cpu_detect(&cpu);
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    assert_int_equal(cpu.best >= TERN_TIER_AVX2, avx2);
    assert_int_equal(cpu.best >= TERN_TIER_AVX512, avx512);
    assert_true(strlen(cpu.vendor) > 0);
}

static void tier_names_parse_back_and_nothing_else_does(void **state) {
    (void)state;
    tern_tier tier;
    char all[96] = "";
    for (int t = 0; t < TERN_TIER_COUNT; t++) {
        assert_true(tern_tier_parse(tern_tier_name((tern_tier)t), &tier));
        assert_int_equal(tier, t);
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", t ? ", " : "", tern_tier_name((tern_tier)t));
    }
    assert_string_equal(all, TERN_TIER_NAMES);
    static const char *const wrong[] = {"", "AVX2", "avx", "avx2 ", "avx5122"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) assert_false(tern_tier_parse(wrong[i], &tier));
}

// ---- choice ------------------------------------------------------------------------------------------------------

static void the_highest_tier_allowed_is_chosen_and_the_first_among_equals(void **state) {
    (void)state;
    for (int cap = 0; cap < TERN_TIER_COUNT; cap++) {
        tern_kernels kernels;
        tern_kernels_choose(&kernels, (tern_tier)cap);
        assert_int_equal(kernels.tier, cap);
        for (size_t i = 0; i < tern_variants_count; i++) {
            const tern_variant *v = &tern_variants[i], *chosen = kernels.chosen[v->stage][v->layout];
            if ((int)v->tier > cap) continue;
            assert_non_null(chosen);
            assert_int_equal(chosen->stage, v->stage);
            assert_int_equal(chosen->layout, v->layout);
            assert_true((int)chosen->tier <= cap && chosen->tier >= v->tier);
            if (chosen->tier == v->tier) assert_true(chosen <= v);
        }
    }
}

static void every_stage_and_layout_has_a_scalar_variant(void **state) {
    (void)state;
    tern_kernels kernels;
    tern_kernels_choose(&kernels, TERN_TIER_SCALAR);
    for (size_t i = 0; i < tern_variants_count; i++) {
        const tern_variant *v = &tern_variants[i];
        if (!kernels.chosen[v->stage][v->layout]) fail_msg("%s has no scalar sibling", v->symbol);
    }
}

static void no_variant_means_null(void **state) {
    (void)state;
    tern_kernels kernels;
    tern_kernels_choose(&kernels, TERN_TIER_AVX512VBMI);
    assert_null(kernels.chosen[TERN_STAGE_quantize][TERN_LAYOUT_T5]);
    assert_null(kernels.chosen[TERN_STAGE_mad_gemm][TERN_LAYOUT_NONE]);
}

static void symbols_are_unique_and_found(void **state) {
    (void)state;
    for (size_t i = 0; i < tern_variants_count; i++) {
        assert_ptr_equal(tern_variant_find(tern_variants[i].symbol), &tern_variants[i]);
        assert_non_null(tern_variants[i].fn);
    }
    assert_null(tern_variant_find("tern_no_such_kernel"));
}

static void the_lut_layout_is_the_one_with_the_highest_tier(void **state) {
    (void)state;
    for (int cap = 0; cap < TERN_TIER_COUNT; cap++) {
        tern_kernels kernels;
        tern_kernels_choose(&kernels, (tern_tier)cap);
        const tern_variant *preferred = kernels.chosen[TERN_STAGE_lut_gemm][kernels.lut_layout];
        const tern_variant *t5 = kernels.chosen[TERN_STAGE_lut_gemm][TERN_LAYOUT_T5];
        for (int layout = 0; layout < TERN_LAYOUT_COUNT; layout++) {
            const tern_variant *v = kernels.chosen[TERN_STAGE_lut_gemm][layout];
            if (v) assert_true(preferred && preferred->tier >= v->tier);
        }
        if (t5 && t5->tier == preferred->tier) assert_int_equal(kernels.lut_layout, TERN_LAYOUT_T5);
    }
}

static void a_form_is_set_on_every_tier(void **state) {
    (void)state;
    static const tern_form expected[TERN_TIER_COUNT] = {TERN_FORM_LUT, TERN_FORM_MAD, TERN_FORM_MAD, TERN_FORM_MAD,
                                                        TERN_FORM_LUT};
    for (int cap = 0; cap < TERN_TIER_COUNT; cap++) {
        tern_kernels kernels;
        tern_kernels_choose(&kernels, (tern_tier)cap);
        assert_int_equal(kernels.ternary_form, expected[cap]);
    }
}

static void a_forced_gemm_becomes_the_form_and_layout_of_new_weights(void **state) {
    (void)state;
    for (size_t i = 0; i < tern_variants_count; i++) {
        const tern_variant *v = &tern_variants[i];
        tern_kernels kernels;
        tern_kernels_choose(&kernels, TERN_TIER_AVX512VBMI);
        tern_kernels_force(&kernels, v);
        assert_ptr_equal(kernels.chosen[v->stage][v->layout], v);
        if (v->stage == TERN_STAGE_lut_gemm) assert_int_equal(kernels.lut_layout, v->layout);
        if (v->stage == TERN_STAGE_lut_gemm) assert_int_equal(kernels.ternary_form, TERN_FORM_LUT);
        if (v->stage == TERN_STAGE_mad_gemm) assert_int_equal(kernels.ternary_form, TERN_FORM_MAD);
        if (v->layout == TERN_LAYOUT_NONE || v->stage == TERN_STAGE_lut_gemm) {
            assert_ptr_equal(tern_kernels_default(&kernels, v->stage), v);
        }
    }
}

static void stage_names_parse_back(void **state) {
    (void)state;
    tern_stage_id stage;
    for (int s = 0; s < TERN_STAGE_COUNT; s++) {
        assert_true(tern_stage_parse(tern_stage_name((tern_stage_id)s), &stage));
        assert_int_equal(stage, s);
    }
    assert_false(tern_stage_parse("lut", &stage));
    assert_string_equal(tern_layout_name(TERN_LAYOUT_NONE), "-");
    assert_string_equal(tern_layout_name(TERN_LAYOUT_I8B32), "i8b32");
    assert_string_equal(tern_layout_name(TERN_LAYOUT_I4B32), "i4b32");
    assert_string_equal(tern_layout_name(TERN_LAYOUT_I4M32), "i4m32");
    assert_string_equal(tern_layout_name(TERN_LAYOUT_I4K), "i4k");
    assert_string_equal(tern_layout_name(TERN_LAYOUT_I6B32), "i6b32");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_generation_gets_its_tier),
        cmocka_unit_test(features_are_listed_by_name),
        cmocka_unit_test(avx2_without_ymm_state_is_scalar),
        cmocka_unit_test(xcr0_is_ignored_without_osxsave),
        cmocka_unit_test(avx512_without_any_part_of_its_state_is_avx2),
        cmocka_unit_test(every_flag_that_files_are_compiled_with_is_needed),
        cmocka_unit_test(avx512_without_the_avx2_flags_is_scalar),
        cmocka_unit_test(a_missing_feature_is_named_with_who_lacks_it),
        cmocka_unit_test(names_are_copied_without_leading_blanks),
        cmocka_unit_test(the_compiler_runtime_agrees_on_this_cpu),
        cmocka_unit_test(tier_names_parse_back_and_nothing_else_does),
        cmocka_unit_test(the_highest_tier_allowed_is_chosen_and_the_first_among_equals),
        cmocka_unit_test(every_stage_and_layout_has_a_scalar_variant),
        cmocka_unit_test(no_variant_means_null),
        cmocka_unit_test(symbols_are_unique_and_found),
        cmocka_unit_test(the_lut_layout_is_the_one_with_the_highest_tier),
        cmocka_unit_test(a_form_is_set_on_every_tier),
        cmocka_unit_test(a_forced_gemm_becomes_the_form_and_layout_of_new_weights),
        cmocka_unit_test(stage_names_parse_back),
    };
    return cmocka_run_group_tests_name("dispatch", tests, NULL, NULL);
}
