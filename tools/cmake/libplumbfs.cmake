# libplumbfs, for other people's programs: shared and static library, header, pkg-config file and CMake package.
#
#     cmake --install build/release --component client     installs these and nothing else

set(PLUMBFS_SOVERSION 1)

add_library(plumbfs_shared SHARED fs/client/plumbfs.cc)
target_link_libraries(plumbfs_shared PRIVATE plumb_options plumb_client)
target_link_options(plumbfs_shared PRIVATE "LINKER:--version-script=${CMAKE_SOURCE_DIR}/fs/client/libplumbfs.map"
                                           "LINKER:--exclude-libs,ALL" "LINKER:-z,defs")
set_target_properties(plumbfs_shared PROPERTIES
                      OUTPUT_NAME plumbfs
                      VERSION ${PLUMBFS_SOVERSION}.${PROJECT_VERSION}
                      SOVERSION ${PLUMBFS_SOVERSION}
                      LINK_DEPENDS "${CMAKE_SOURCE_DIR}/fs/client/libplumbfs.map")
if(NOT PLUMBFS_SANITIZE)
  # Nothing of the C++ library is needed, and a program in C shall not get it.
  set_target_properties(plumbfs_shared PROPERTIES LINKER_LANGUAGE C)
endif()

# The engine is part of it.
add_library(plumbfs_static STATIC fs/client/plumbfs.cc $<TARGET_OBJECTS:plumb_client>)
target_link_libraries(plumbfs_static PRIVATE $<BUILD_INTERFACE:plumb_options> PUBLIC Threads::Threads)
set_target_properties(plumbfs_static PROPERTIES OUTPUT_NAME plumbfs)

foreach(target IN ITEMS plumbfs_shared plumbfs_static)
  target_compile_options(${target} PRIVATE ${PLUMB_CLIENT_OPTIONS})
  target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/fs/client>
                                                 $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()

install(TARGETS plumbfs_shared EXPORT plumbfs LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client
        NAMELINK_COMPONENT client)
install(FILES fs/client/plumbfs.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT client)
install(FILES tools/man/libplumbfs.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 COMPONENT client)

# For CMake: find_package(plumbfs), then plumbfs::plumbfs or plumbfs::plumbfs_static.
include(CMakePackageConfigHelpers)
set_target_properties(plumbfs_shared PROPERTIES EXPORT_NAME plumbfs)
install(TARGETS plumbfs_static EXPORT plumbfs ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(EXPORT plumbfs NAMESPACE plumbfs:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plumbfs FILE plumbfs-targets.cmake
        COMPONENT client)
configure_package_config_file(tools/cmake/plumbfs-config.cmake.in "${CMAKE_BINARY_DIR}/plumbfs-config.cmake"
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plumbfs)
write_basic_package_version_file("${CMAKE_BINARY_DIR}/plumbfs-config-version.cmake" COMPATIBILITY SameMajorVersion)
install(FILES "${CMAKE_BINARY_DIR}/plumbfs-config.cmake" "${CMAKE_BINARY_DIR}/plumbfs-config-version.cmake"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plumbfs COMPONENT client)

# For everything else: pkg-config libplumbfs.
configure_file(tools/cmake/libplumbfs.pc.in "${CMAKE_BINARY_DIR}/libplumbfs.pc" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/libplumbfs.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT client)
