# SPDX-License-Identifier: MIT
# The long runs of the kernel tests, and the same binaries on older CPUs that qemu-user emulates.
foreach(test test_ternary_direct test_mad_direct test_int8_direct test_int6_direct test_int4_direct)
  add_test(NAME ${test}_long COMMAND ${test} long)
  set_tests_properties(${test}_long PROPERTIES LABELS slow)
endforeach()

# A Haswell has AVX2 and nothing above, a Nehalem not even AVX. Emulation takes 20 to 50 times as long: sweeps run a random share.
find_program(TERN_QEMU qemu-x86_64 NO_CACHE) # of qemu-user, which tools/setup.sh installs
set(kernel_tests ${TERN_TEST_SOURCES})
list(FILTER kernel_tests INCLUDE REGEX "_direct\\.c$|^test_kernels\\.c$")
if(TERN_QEMU AND NOT TERN_SANITIZE) # sanitizers do not run under qemu
  foreach(source IN LISTS kernel_tests)
    string(REPLACE ".c" "" test ${source})
    foreach(cpu Haswell Nehalem)
      add_test(NAME ${test}_on_${cpu} COMMAND ${TERN_QEMU} -cpu ${cpu} $<TARGET_FILE:${test}>)
      set_tests_properties(${test}_on_${cpu} PROPERTIES LABELS slow ENVIRONMENT "TERN_TUNE=off;TERN_TEST_SCALE=0.01")
    endforeach()
  endforeach()
elseif(NOT TERN_SANITIZE)
  message(STATUS "qemu-x86_64 not found: the kernel tests do not run as on older CPUs; tools/setup.sh installs it")
endif()
