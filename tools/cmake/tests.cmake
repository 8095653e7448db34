# Test programs, one a directory of test/. Those registered with CTest need neither root nor FUSE;
# what needs a mount is run by tools/check.

# Code that tests share, such as the crash device and the model file system.
plumb_layer(plumb_test_support test/support DEPENDS plumb_core Catch2::Catch2)

# The headers that cost most of a test's compile time.
function(plumb_test_pch target)
  target_precompile_headers(${target} PRIVATE <catch2/catch_test_macros.hpp>
                            <catch2/matchers/catch_matchers_all.hpp>
                            <catch2/generators/catch_generators_all.hpp> <algorithm> <cstdint>
                            <functional> <map> <memory> <optional> <random> <span> <string> <vector>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # for ccache
  endif()
endfunction()

# plumb_catch_program(NAME DIRECTORY [LABEL ctest label] [ONLY regex] DEPENDS ...)
function(plumb_catch_program name directory)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "LABEL;ONLY" "DEPENDS")
  plumb_program(${name} ${directory} DEPENDS ${arg_DEPENDS} Catch2::Catch2WithMain
                ONLY ${arg_ONLY} ${PLUMBFS_TEST_FILES})
  if(NOT TARGET ${name})
    return()
  endif()
  plumb_test_pch(${name})
  # The sources of the tests find their data by this, from whatever directory they are started.
  target_compile_definitions(${name} PRIVATE PLUMBFS_TEST_DIR="${CMAKE_SOURCE_DIR}/test")
  if(arg_LABEL)
    add_test(NAME ${arg_LABEL} COMMAND ${name})
    set_tests_properties(${arg_LABEL} PROPERTIES LABELS ${arg_LABEL} TIMEOUT 900)
  endif()
endfunction()

plumb_catch_program(plumb_unit_tests test/unit LABEL unit DEPENDS plumb_test_support plumb_fuse
                    plumb_tools_common plumb_client)
# What the crash tests and the explorer have in common.
plumb_layer(plumb_crash_harness test/crash DEPENDS plumb_core EXCLUDE "_test\\.cc$")
plumb_catch_program(plumb_crash_tests test/crash LABEL crash ONLY "_test\\.cc$" DEPENDS plumb_crash_harness)
plumb_program(plumb_crash_explore test/crash/explore DEPENDS plumb_crash_harness)
plumb_catch_program(plumb_image_tests test/image LABEL image DEPENDS plumb_test_support)
# The direct path of clients, as far as it needs no mount.
plumb_catch_program(plumb_client_tests test/client LABEL client ONLY "_test\\.cc$" DEPENDS plumb_client)
# libplumbfs on a mount: test/client/run.
plumb_catch_program(plumb_client_mounted test/client/mounted DEPENDS plumbfs_static plumb_options)
target_sources(plumb_client_mounted PRIVATE test/posix/support.cc)
plumb_program(plumb_client_hold test/client/hold DEPENDS plumbfs_static)
# Against a mounted directory, which it gets by its environment: it knows nothing of plumbfs.
plumb_catch_program(plumb_posix_tests test/posix DEPENDS plumb_options Threads::Threads)
# Programs under the preload library, and without; the directory is in the environment here too.
plumb_catch_program(plumb_preload_tests test/preload DEPENDS plumb_options Threads::Threads ${CMAKE_DL_LIBS})
target_sources(plumb_preload_tests PRIVATE test/posix/support.cc)

add_test(NAME include_direction
         COMMAND "${CMAKE_SOURCE_DIR}/test/unit/include_direction.sh" "${CMAKE_SOURCE_DIR}")
set_tests_properties(include_direction PROPERTIES LABELS unit)

# Programs that tools/check and the scripts beside them run on a mount.
plumb_program(plumb_fsx test/fsx DEPENDS Threads::Threads)
plumb_program(plumb_kill test/kill DEPENDS Threads::Threads)
# The direct path: processes with the preload library beside others, and killed ones.
plumb_program(plumb_direct test/direct DEPENDS plumb_options Threads::Threads)
target_sources(plumb_direct PRIVATE test/kill/daemon.cc)
# Asks for MAP_SYNC, for test/vm/direct.sh.
plumb_program(plumb_map_sync test/pmdk DEPENDS plumb_options)
plumb_program(plumb_bench test/bench DEPENDS plumb_core)
# The limit that test/bench/direct compares the preload library with.
add_library(plumb_bare_preload SHARED test/bench/bare/bare.cc)
target_link_libraries(plumb_bare_preload PRIVATE plumb_client)
set_target_properties(plumb_bare_preload PROPERTIES LINKER_LANGUAGE C)
# Breaks images and runs fsck.plumbfs on them.
plumb_program(plumb_fsck_catalogue test/catalogue DEPENDS plumb_core plumb_dep_tool)
target_sources(plumb_fsck_catalogue PRIVATE test/crash/snapshot.cc)
target_compile_definitions(plumb_fsck_catalogue PRIVATE PLUMBFS_TEST_DIR="${CMAKE_SOURCE_DIR}/test")
add_dependencies(plumb_fsck_catalogue fsck.plumbfs)
plumb_program(plumb_million test/million DEPENDS plumb_core)
plumb_program(plumb_concurrency_tests test/concurrency DEPENDS plumb_test_support
              Catch2::Catch2WithMain)

# The fuzz targets: with any compiler the checked-in corpus is run through them; with clang they are fuzzed.
plumb_layer(plumb_fuzz_targets test/fuzz DEPENDS plumb_fuse)
plumb_catch_program(plumb_fuzz_corpus test/fuzz/replay LABEL fuzz_corpus DEPENDS plumb_fuzz_targets)
if(PLUMBFS_FUZZ)
  plumb_program(plumb_fuzz test/fuzz ONLY "/main\\.cc$" DEPENDS plumb_fuzz_targets -fsanitize=fuzzer)
endif()
