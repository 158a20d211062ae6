# SPDX-License-Identifier: MIT
# Logits against the float64 NumPy forward: fails without the Python packages of tools/setup.sh. Python cannot load a library
# that is instrumented by a sanitizer, so those builds leave it to the others.
if(TERN_DECODE AND NOT TERN_SANITIZE)
  set(parts 3) # side by side
  foreach(part RANGE 1 ${parts})
    math(EXPR index "${part} - 1")
    add_test(NAME logits_equal_the_float64_reference_${part}
             COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/check_logits.py --library $<TARGET_FILE:tern_shared> --part ${index} ${parts})
    # One BLAS thread: the matrices are tiny, and the other tests want the cores.
    set_tests_properties(logits_equal_the_float64_reference_${part} PROPERTIES ENVIRONMENT OPENBLAS_NUM_THREADS=1 TIMEOUT 600)
  endforeach()
endif()
