# Language level, warnings, optimisation and sanitizers, the same for every target of ours.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

# Assertions stay in: a broken invariant in memory must stop the daemon before it reaches media.
# The target is any x86-64; ISA-L and libpmem choose faster code when they run.
foreach(language IN ITEMS C CXX)
  set(CMAKE_${language}_FLAGS_RELWITHDEBINFO "-O2 -g")
  set(CMAKE_${language}_FLAGS_DEBUG "-Og -g")
endforeach()

# Inherited by every target of ours, and by nothing else.
add_library(plumb_options INTERFACE)
target_include_directories(plumb_options INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_definitions(plumb_options INTERFACE PLUMBFS_VERSION="${PROJECT_VERSION}"
                                                   _FILE_OFFSET_BITS=64 _GNU_SOURCE)
target_compile_options(plumb_options INTERFACE -Wall -Wextra -Wshadow -Wconversion
                                               -Wno-sign-conversion -Werror
                                               "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(plumb_options INTERFACE -Wno-restrict)  # false positives on std::string, GCC bug 105651
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(plumb_options INTERFACE -Wthread-safety)
endif()

if(PLUMBFS_MUTATION)
  target_compile_definitions(plumb_options INTERFACE PLUMBFS_MUTATION)
  target_compile_options(plumb_options INTERFACE -Wno-overloaded-virtual)  # which is the point of it
endif()
if(PLUMBFS_SANITIZE)
  # Instrumented code takes several times as long to compile at -O2, and finds nothing more.
  set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g1")
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
  add_compile_options(-fsanitize=${PLUMBFS_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PLUMBFS_SANITIZE})
  if(PLUMBFS_SANITIZE MATCHES thread)
    # gcc: fences have no equivalent in tsan's model; we know, the code pairs them with atomics.
    add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  endif()
  if(PLUMBFS_SANITIZE MATCHES address AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # gcc 12 warns of its own instrumentation (GCC bugs 105562, 105593).
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
endif()

if(PLUMBFS_FUZZ)
  # All layers are instrumented; their other programs get the hooks from the sanitizer's runtime.
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang OR NOT PLUMBFS_SANITIZE MATCHES address)
    message(FATAL_ERROR "PLUMBFS_FUZZ needs clang and the address sanitizer: use cmake --preset fuzz")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # The sloppiness is what ccache's manual asks for with precompiled headers.
  foreach(language IN ITEMS C CXX)
    set(CMAKE_${language}_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}"
        CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
        ${CCACHE_PROGRAM})
  endforeach()
endif()
