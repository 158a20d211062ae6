# SPDX-License-Identifier: MIT
# The model of scale, and the program that measures what it starts from.
add_test(NAME test_simulate_scaling
         COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_simulate_scaling.py ${CMAKE_SOURCE_DIR})
if(TERN_BENCH AND TERN_DECODE AND NOT TERN_SANITIZE)
  add_test(NAME scale_bench_measures_what_the_model_needs
           COMMAND sh -c "\"$0\" --quick --workers 1,2 \"$1\" >scale.json && \"$2\" \"$3\" --check scale.json"
                   $<TARGET_FILE:tern_scale_bench> ${TERN_TEST_MODELS}/tiny-tq2_0.gguf ${TERN_PYTHON}
                   ${CMAKE_SOURCE_DIR}/tools/scaling_report.py)
  set_tests_properties(scale_bench_measures_what_the_model_needs PROPERTIES FIXTURES_REQUIRED models)
endif()
