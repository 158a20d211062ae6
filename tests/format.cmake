# SPDX-License-Identifier: MIT
# test_blocks compares with what the gguf package makes of the same blocks: written at test time, and a failure without it.
set(TERN_BLOCKS_DIR ${CMAKE_CURRENT_BINARY_DIR}/blocks)
add_test(NAME gguf_package_writes_reference_blocks
         COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/gen_blocks.py ${TERN_BLOCKS_DIR})
set_tests_properties(gguf_package_writes_reference_blocks PROPERTIES FIXTURES_SETUP reference_blocks)
set_tests_properties(test_blocks PROPERTIES FIXTURES_REQUIRED reference_blocks)
set_property(TEST test_blocks APPEND PROPERTY ENVIRONMENT TERN_BLOCKS_DIR=${TERN_BLOCKS_DIR})

# Fuzzing of the GGUF reader: cmake --preset fuzz, then build/fuzz/tests/fuzz_gguf CORPUS_FOLDER.
option(TERN_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
if(TERN_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TERN_FUZZ needs clang (this is ${CMAKE_C_COMPILER_ID}); use the preset fuzz")
  endif()
  add_executable(fuzz_gguf fuzz_gguf.c)
  target_include_directories(fuzz_gguf PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_link_libraries(fuzz_gguf PRIVATE tern_static tern_flags)
  target_link_options(fuzz_gguf PRIVATE -fsanitize=fuzzer)
endif()
