# SPDX-License-Identifier: MIT
# The converter of BitNet checkpoints, on tiny ones that the safetensors package writes; what it makes of a llama also runs in tern.
set(test_convert ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_convert_bitnet.py ${CMAKE_SOURCE_DIR}/tools)
if(TARGET tern)
  list(APPEND test_convert --tern $<TARGET_FILE:tern>)
endif()
add_test(NAME test_convert_bitnet COMMAND ${test_convert})
set_tests_properties(test_convert_bitnet PROPERTIES ENVIRONMENT OPENBLAS_NUM_THREADS=1)
