# What plumbfs is built from. Everything here is installed by tools/setup, and says so when missing.

set(PLUMBFS_SETUP_HINT "Run tools/setup (as root) to install what plumbfs is built with.")

# libfuse and Catch2 come from a private prefix, as Debian 12's are too old.
if(DEFINED ENV{PLUMBFS_DEPS})
  set(PLUMBFS_DEPS_DEFAULT "$ENV{PLUMBFS_DEPS}")
else()
  set(PLUMBFS_DEPS_DEFAULT "/var/cache/plumbfs/deps-1")
endif()
set(PLUMBFS_DEPS "${PLUMBFS_DEPS_DEFAULT}" CACHE PATH "Prefix of libfuse and Catch2 (tools/setup)")

macro(plumb_find_package name)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${name} was not found. ${PLUMBFS_SETUP_HINT}")
  endif()
endmacro()

find_package(PkgConfig QUIET)
if(NOT PkgConfig_FOUND)
  message(FATAL_ERROR "pkg-config was not found. ${PLUMBFS_SETUP_HINT}")
endif()

# plumb_pkg(TARGET MODULE): an interface target for a library that has only a pkg-config file.
function(plumb_pkg target module)
  pkg_check_modules(${target} QUIET IMPORTED_TARGET ${module})
  if(NOT ${target}_FOUND)
    message(FATAL_ERROR "${module} was not found by pkg-config. ${PLUMBFS_SETUP_HINT}")
  endif()
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE PkgConfig::${target})
endfunction()

set(THREADS_PREFER_PTHREAD_FLAG ON)
plumb_find_package(Threads)
plumb_find_package(tl-expected)
plumb_find_package(absl)
plumb_find_package(fmt)
plumb_find_package(spdlog)
plumb_find_package(CLI11)
plumb_find_package(nlohmann_json)
plumb_pkg(plumb_dep_pmem libpmem)
plumb_pkg(plumb_dep_isal libisal)
plumb_pkg(plumb_dep_blkid blkid)
plumb_pkg(plumb_dep_uuid uuid)

add_library(plumb_dep_absl INTERFACE)
target_link_libraries(plumb_dep_absl INTERFACE absl::flat_hash_map absl::flat_hash_set absl::btree
                                               absl::inlined_vector absl::span)
# Logging for programs only: fs/core returns facts, fs/fuse and the tools log them.
add_library(plumb_dep_tool INTERFACE)
target_link_libraries(plumb_dep_tool INTERFACE CLI11::CLI11 nlohmann_json::nlohmann_json
                                               spdlog::spdlog plumb_dep_blkid plumb_dep_uuid)

# libfuse: the static one in the prefix, else the system's with what that costs.
add_library(plumb_dep_fuse INTERFACE)
find_library(PLUMBFS_FUSE_LIBRARY libfuse3.a PATHS "${PLUMBFS_DEPS}/lib" NO_DEFAULT_PATH)
if(PLUMBFS_FUSE_LIBRARY)
  plumb_pkg(plumb_dep_uring liburing)
  plumb_pkg(plumb_dep_numa numa)
  target_include_directories(plumb_dep_fuse SYSTEM INTERFACE "${PLUMBFS_DEPS}/include/fuse3")
  target_link_libraries(plumb_dep_fuse INTERFACE "${PLUMBFS_FUSE_LIBRARY}" plumb_dep_uring
                                                 plumb_dep_numa Threads::Threads ${CMAKE_DL_LIBS} rt)
  message(STATUS "libfuse: ${PLUMBFS_FUSE_LIBRARY}")
else()
  plumb_pkg(plumb_dep_system_fuse fuse3)
  target_link_libraries(plumb_dep_fuse INTERFACE plumb_dep_system_fuse)
  message(WARNING "libfuse >= 3.18 was not found in ${PLUMBFS_DEPS}; building with the system's "
                  "${plumb_dep_system_fuse_VERSION}: no shared mmap together with direct_io, no "
                  "btime in statx, no FUSE over io_uring. ${PLUMBFS_SETUP_HINT}")
endif()

if(PLUMBFS_TESTS)
  find_package(Catch2 3.4 QUIET PATHS "${PLUMBFS_DEPS}" NO_DEFAULT_PATH)
  if(NOT Catch2_FOUND)
    find_package(Catch2 3.4 QUIET)
  endif()
  if(NOT Catch2_FOUND)
    message(FATAL_ERROR "Catch2 >= 3.4 was not found in ${PLUMBFS_DEPS} nor in the system. "
                        "${PLUMBFS_SETUP_HINT} Or configure with -DPLUMBFS_TESTS=OFF.")
  endif()
endif()
