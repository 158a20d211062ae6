# SPDX-License-Identifier: MIT
# The worker pool's protocol, model-checked with SPIN. It says nothing about a build, so one kind of build runs it.
find_program(TERN_SPIN spin NO_CACHE REQUIRED) # Debian: spin
if(NOT TERN_SANITIZE)
  add_test(NAME pool_protocol_keeps_its_properties_and_broken_ones_are_caught
           COMMAND ${TERN_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/model/check.py)
  set_tests_properties(pool_protocol_keeps_its_properties_and_broken_ones_are_caught
                       PROPERTIES LABELS slow PROCESSORS 2 ENVIRONMENT CC=${CMAKE_C_COMPILER})
endif()
