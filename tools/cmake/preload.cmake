# libplumbfs_preload.so: the direct path for programs that know nothing of it (plumb run).
#
# It is in other people's processes before anything else, so it needs libc only: linked as C, with the memory and the
# system calls of the engine its own (--wrap).

file(GLOB PLUMB_PRELOAD_SOURCES CONFIGURE_DEPENDS fs/client/preload/*.cc)
set(PLUMB_PRELOAD_EXPORTS "${CMAKE_SOURCE_DIR}/fs/client/preload/exports.map")
add_library(plumbfs_preload SHARED ${PLUMB_PRELOAD_SOURCES})
target_link_libraries(plumbfs_preload PRIVATE plumb_client)
target_compile_options(plumbfs_preload PRIVATE ${PLUMB_CLIENT_OPTIONS})
target_link_options(plumbfs_preload PRIVATE -Wl,--wrap=malloc,--wrap=free,--wrap=syscall -Wl,-z,defs -Wl,-z,now
                                            "-Wl,--version-script=${PLUMB_PRELOAD_EXPORTS}")
set_target_properties(plumbfs_preload PROPERTIES LINKER_LANGUAGE C LINK_DEPENDS "${PLUMB_PRELOAD_EXPORTS}")
set(PLUMBFS_PRELOAD_DIR "${CMAKE_INSTALL_FULL_LIBDIR}/plumbfs")
install(TARGETS plumbfs_preload LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/plumbfs")
