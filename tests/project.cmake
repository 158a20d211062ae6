# SPDX-License-Identifier: MIT
# Tests of the project rather than of code: include rules, public headers, exported symbols, installed package, scripts.
# Python: the one that tools/setup.sh installs packages for.
find_program(TERN_PYTHON python3 PATHS ${CMAKE_SOURCE_DIR}/build/venv/bin NO_DEFAULT_PATH NO_CACHE) # the venv may come later
find_program(TERN_PYTHON python3 NO_CACHE REQUIRED)
find_program(TERN_CXX NAMES ${CMAKE_CXX_COMPILER} g++ clang++ REQUIRED)

add_test(NAME includes_follow_the_architecture COMMAND ${TERN_PYTHON} ${CMAKE_SOURCE_DIR}/tools/check_includes.py)
add_test(NAME public_headers_compile_alone_in_c_and_cxx
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_headers.sh ${CMAKE_SOURCE_DIR} ${CMAKE_C_COMPILER} ${TERN_CXX})
# A sanitized library exports the sanitizer's symbols and needs its run time: not what anyone installs.
if(TERN_DECODE AND NOT TERN_SANITIZE)
  add_test(NAME exported_symbols_are_the_public_headers
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/check_exports.py ${CMAKE_SOURCE_DIR} $<TARGET_FILE:tern_shared> decode)
  add_test(NAME installed_library_serves_a_consumer
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_install.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} ${CMAKE_C_COMPILER} decode)
  add_test(NAME library_without_decode_builds_and_installs
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_nodecode.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} ${CMAKE_C_COMPILER})
endif()
if(TERN_SANITIZE) # not a generator expression: the list of sanitizers holds commas
  set(sanitize -fsanitize=${TERN_SANITIZE})
endif()
foreach(page README.md docs/engines.md)
  get_filename_component(page_name ${page} NAME_WE)
  string(TOLOWER ${page_name} page_name)
  add_test(NAME programs_in_${page_name}_print_what_it_says
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_examples.sh ${CMAKE_SOURCE_DIR} ${page} $<TARGET_FILE:tern_shared>
                   ${CMAKE_C_COMPILER} -Wl,-rpath,$<TARGET_FILE_DIR:tern_shared> ${sanitize})
  set_tests_properties(programs_in_${page_name}_print_what_it_says PROPERTIES ENVIRONMENT TERN_TUNE=off)
endforeach()
# Optimized objects only: what the loops of a debug or sanitized build cost says nothing.
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT TERN_SANITIZE)
  set(kernel_objects ${CMAKE_BINARY_DIR}/CMakeFiles/tern_objects.dir/kernels)
  add_test(NAME test_kernel_cost
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_kernel_cost.py ${CMAKE_SOURCE_DIR} ${kernel_objects})
  add_test(NAME marked_loops_cost_what_the_table_says
           COMMAND ${TERN_PYTHON} ${CMAKE_SOURCE_DIR}/tools/kernel_cost.py ${kernel_objects}
                   --table ${CMAKE_CURRENT_SOURCE_DIR}/data/kernel_costs.json)
  set_tests_properties(marked_loops_cost_what_the_table_says PROPERTIES SKIP_RETURN_CODE 77) # another compiler than the table's
endif()
if(TERN_BENCH AND NOT TERN_SANITIZE) # sanitizers know nothing of OpenMP's barriers
  add_test(NAME test_sched_bench
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/test_sched_bench.py $<TARGET_FILE:tern_sched_bench>
                   ${CMAKE_SOURCE_DIR}/tools/sched_report.py)
endif()
# Ten million regions (some minutes; fewer under a sanitizer); test_pool_stress by itself runs a sample.
set(regions 10000000)
if(TERN_SANITIZE)
  set(regions 100000)
endif()
add_test(NAME test_pool_stress_long COMMAND test_pool_stress)
set_tests_properties(test_pool_stress_long PROPERTIES LABELS slow TIMEOUT 3600 ENVIRONMENT TERN_POOL_REGIONS=${regions})
