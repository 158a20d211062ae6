# SPDX-License-Identifier: MIT
# Tiny models made by tools/make_model.py before the tests that read them.
set(TERN_TEST_MODELS ${CMAKE_CURRENT_BINARY_DIR}/models)
set(make_model ${TERN_PYTHON} ${CMAKE_SOURCE_DIR}/tools/make_model.py)
file(MAKE_DIRECTORY ${TERN_TEST_MODELS})

# make_test_model(NAME ARGS...): a ctest fixture `models` that writes NAME.gguf.
function(make_test_model name)
  add_test(NAME make_model_${name} COMMAND ${make_model} ${ARGN} ${TERN_TEST_MODELS}/${name}.gguf)
  set_tests_properties(make_model_${name} PROPERTIES FIXTURES_SETUP models)
endfunction()
make_test_model(tiny-tq2_0 --shape tiny --type TQ2_0 --seed 1)
make_test_model(tiny-gqa-q8_0 --shape tiny-gqa --type Q8_0 --seed 2)
make_test_model(tiny-long --shape tiny --ctx 32768 --seed 3)
make_test_model(tiny-head-f16 --shape tiny-gqa --type TQ2_0 --head-type F16 --untied --seed 3)
make_test_model(tiny-head-f32 --shape tiny-gqa --type TQ2_0 --head-type F32 --untied --seed 4)
make_test_model(tiny-scales --shape tiny --arch bitnet --type TQ2_0 --head-type F16 --seed 5) # and .scale tensors
make_test_model(tiny-fused --shape tiny-gqa --arch phi3 --type Q4_0 --rope-scaling longrope --seed 6)
make_test_model(tiny-biases --shape tiny-gqa --arch qwen2 --type TQ1_0 --scales varied --untied --seed 7)

if(TERN_DECODE)
  foreach(test test_decode test_decode_file test_endurance test_decode_kv test_decode_misuse test_decode_sessions test_decode_stop test_decode_threads test_head test_head_screen test_hostile_model test_packed)
    target_compile_definitions(${test} PRIVATE TERN_TEST_MODELS="${TERN_TEST_MODELS}")
    set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED models)
  endforeach()
endif()
