# SPDX-License-Identifier: MIT
# Read by CMake inside llama.cpp's project() (CMAKE_PROJECT_llama.cpp_INCLUDE): llama-cpp-python forces this option on, and its common
# library (chat templates, JSON, downloads) takes longer to compile than all that Tern's tools call.
set(LLAMA_BUILD_COMMON OFF)
