# SPDX-License-Identifier: MIT
# Install rules: headers, both libraries, the CMake package (tern::shared, tern::static, tern::tern), tern.pc, the manual page.
include(CMakePackageConfigHelpers)
set(TERN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tern)

install(DIRECTORY include/tern DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h"
        PATTERN decode.h EXCLUDE)
if(TERN_DECODE)
  install(FILES include/tern/decode.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tern)
endif()

# Two export files: a consumer of the shared library needs none of its private dependencies' development files.
foreach(kind shared static)
  install(TARGETS tern_${kind} EXPORT tern_${kind} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT tern_${kind} NAMESPACE tern:: FILE tern-${kind}.cmake DESTINATION ${TERN_CMAKE_DIR})
endforeach()
configure_package_config_file(tools/package/ternConfig.cmake.in ${CMAKE_BINARY_DIR}/package/ternConfig.cmake
                              INSTALL_DESTINATION ${TERN_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/ternConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/ternConfig.cmake ${CMAKE_BINARY_DIR}/package/ternConfigVersion.cmake
        DESTINATION ${TERN_CMAKE_DIR})

# tern.pc finds its prefix from its own place, so that `cmake --install --prefix` and moved trees work.
file(RELATIVE_PATH TERN_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" TERN_PC_PREFIX "${TERN_PC_PREFIX}")
list(JOIN HWLOC_LDFLAGS " " TERN_PC_LIBS_PRIVATE)
if(TERN_DECODE)
  list(JOIN PCRE2_LDFLAGS " " TERN_PC_PCRE2)
  string(APPEND TERN_PC_LIBS_PRIVATE " ${TERN_PC_PCRE2}")
endif()
configure_file(tools/package/tern.pc.in ${CMAKE_BINARY_DIR}/package/tern.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/package/tern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET tern)
  install(TARGETS tern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES docs/tern.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
