# SPDX-License-Identifier: MIT
# Tern in the threads of others: the examples in docs/examples, OpenMP where the compiler has it.
find_package(OpenMP COMPONENTS C QUIET)
set(openmp_tests test_callers_threads)
if(TERN_DECODE)
  list(APPEND openmp_tests test_decode_threads)
endif()
if(TERN_SANITIZE MATCHES "thread") # which takes the barriers of OpenMP's library, built without it, for races
  message(STATUS "the OpenMP parallel_for is not tested under ThreadSanitizer")
elseif(OpenMP_C_FOUND)
  foreach(test IN LISTS openmp_tests)
    target_link_libraries(${test} PRIVATE OpenMP::OpenMP_C)
  endforeach()
else()
  message(STATUS "${CMAKE_C_COMPILER} has no OpenMP: the OpenMP parallel_for is not tested")
endif()
