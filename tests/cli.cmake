# SPDX-License-Identifier: MIT
# The tern command, run like a user runs it.
if(TARGET tern)
  set(test_cli ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
  add_test(NAME test_cli COMMAND ${test_cli} Errors)
  set_tests_properties(test_cli PROPERTIES FIXTURES_REQUIRED models)
  foreach(command IN ITEMS info generate predictions tune pack q2)
    add_test(NAME test_cli_${command}
             COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_${command}.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
    set_tests_properties(test_cli_${command} PROPERTIES FIXTURES_REQUIRED models)
  endforeach()
  add_test(NAME test_manual COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_manual.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
  set_tests_properties(test_manual PROPERTIES FIXTURES_REQUIRED models)
  add_test(NAME test_bad_models
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_bad_models.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
  set_tests_properties(test_bad_models PROPERTIES FIXTURES_REQUIRED models)
  add_test(NAME test_cli_chat COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_chat.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
  set_tests_properties(test_cli_chat PROPERTIES FIXTURES_REQUIRED models)
  add_test(NAME greedy_text_is_the_same_however_it_is_made
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/check_greedy.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS}/tiny-tq2_0.gguf
                   ${TERN_TEST_MODELS}/tiny-gqa-q8_0.gguf ${TERN_TEST_MODELS}/tiny-biases.gguf ${TERN_TEST_MODELS}/tiny-fused.gguf)
  set_tests_properties(greedy_text_is_the_same_however_it_is_made PROPERTIES FIXTURES_REQUIRED models)
  add_test(NAME test_cli_threads
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_threads.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
  add_test(NAME test_cli_placement
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_placement.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS} -v)
  set_tests_properties(test_cli_threads test_cli_placement PROPERTIES FIXTURES_REQUIRED models)
  pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson) # as in tools, but for this folder
  add_executable(hostile_trace hostile_trace.c ${CMAKE_SOURCE_DIR}/tools/trace_file.c ${CMAKE_SOURCE_DIR}/tools/cli.c
                 ${CMAKE_SOURCE_DIR}/tools/utf8.c)
  target_include_directories(hostile_trace PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(hostile_trace PRIVATE tern_static tern_flags PkgConfig::JANSSON m)
  set(test_cli_trace ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_trace.py $<TARGET_FILE:tern> $<TARGET_FILE:hostile_trace>
                     ${TERN_TEST_MODELS})
  add_test(NAME test_cli_trace COMMAND ${test_cli_trace} Files Generate HostileNames Plot)
  set_tests_properties(test_cli_trace PROPERTIES FIXTURES_REQUIRED models)
  if(NOT TERN_SANITIZE AND TARGET tern_shared) # Python loads the library
    add_test(NAME test_compare_engines
             COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_compare_engines.py ${CMAKE_SOURCE_DIR} $<TARGET_FILE:tern_shared>
                     $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
    set_tests_properties(test_compare_engines PROPERTIES FIXTURES_REQUIRED models SKIP_RETURN_CODE 77)
  endif()
  if(NOT TERN_SANITIZE) # sanitizers do not run under qemu, and would be what bench measures
    add_test(NAME test_cli_old_cpus COMMAND ${test_cli} OldCpus)
    set_tests_properties(test_cli_old_cpus PROPERTIES FIXTURES_REQUIRED models)
    add_test(NAME test_cli_bench
             COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_cli_bench.py $<TARGET_FILE:tern> ${TERN_TEST_MODELS})
    set_tests_properties(test_cli_bench PROPERTIES LABELS slow)
    add_test(NAME test_cli_trace_bench COMMAND ${test_cli_trace} Bench)
    set_tests_properties(test_cli_trace_bench PROPERTIES LABELS slow)
    add_test(NAME test_compare_kernels
             COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_compare_kernels.py ${CMAKE_SOURCE_DIR} $<TARGET_FILE:tern_shared>)
    set_tests_properties(test_compare_kernels PROPERTIES LABELS slow SKIP_RETURN_CODE 77)
  endif()
endif()
