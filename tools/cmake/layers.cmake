# Targets made from the sources of a directory.

# plumb_layer(TARGET DIRECTORY DEPENDS ... [EXCLUDE regex]): a static library of DIRECTORY/*.cc without
# main.cc and those that EXCLUDE matches, or, as long as the directory has none, an interface target that
# passes its dependencies on.
function(plumb_layer target directory)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "EXCLUDE" "DEPENDS")
  file(GLOB sources CONFIGURE_DEPENDS "${directory}/*.cc")
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(arg_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${arg_EXCLUDE}")
  endif()
  if(sources)
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PUBLIC plumb_options ${arg_DEPENDS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE plumb_options ${arg_DEPENDS})
  endif()
endfunction()

# plumb_program(NAME DIRECTORY DEPENDS ... [INSTALL destination] [ONLY regex...]): a program of
# DIRECTORY/*.cc, or of those whose name all of ONLY match.
function(plumb_program name directory)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "INSTALL" "DEPENDS;ONLY")
  file(GLOB sources CONFIGURE_DEPENDS "${directory}/*.cc")
  foreach(regex IN LISTS arg_ONLY)
    list(FILTER sources INCLUDE REGEX "${regex}")
  endforeach()
  if(NOT sources)
    message(STATUS "${name}: no sources in ${directory}, left out")
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE plumb_options ${arg_DEPENDS})
  if(arg_INSTALL)
    install(TARGETS ${name} RUNTIME DESTINATION ${arg_INSTALL})
  endif()
endfunction()

# plumb_single_file_programs(DIRECTORY PREFIX DEPENDS ... [EXCLUDE regex]): each .cc and .c is a program of its own.
function(plumb_single_file_programs directory prefix)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "EXCLUDE" "DEPENDS")
  file(GLOB sources CONFIGURE_DEPENDS "${directory}/*.cc" "${directory}/*.c")
  if(arg_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${arg_EXCLUDE}")
  endif()
  foreach(source IN LISTS sources)
    get_filename_component(name "${source}" NAME_WE)
    add_executable(${prefix}${name} "${source}")
    target_link_libraries(${prefix}${name} PRIVATE plumb_options ${arg_DEPENDS})
  endforeach()
endfunction()
