# SPDX-License-Identifier: Apache-2.0
# Stops with instructions if neither PATH nor rustup's folder has a cargo that is new enough. Sets `path_of_cargo` to
# what must be prepended to PATH to find it. Also stops if bindgen will not find libclang, which would otherwise show
# minutes later.
file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml rust_version REGEX "^rust-version = ")
string(REGEX REPLACE ".*\"(.*)\".*" "\\1" rust_version "${rust_version}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml)

find_program(in_path cargo NO_CACHE NO_CMAKE_PATH NO_CMAKE_ENVIRONMENT_PATH NO_CMAKE_SYSTEM_PATH)
set(candidates "${in_path}" "$ENV{CARGO_HOME}/bin/cargo" "$ENV{HOME}/.cargo/bin/cargo")
set(cargo "")
set(found "")
foreach(candidate IN LISTS candidates)
  if(cargo OR NOT EXISTS "${candidate}")
    continue()
  endif()
  execute_process(COMMAND "${candidate}" --version OUTPUT_VARIABLE version ERROR_VARIABLE version)
  string(REGEX MATCH "cargo ([0-9.]+)" version "${version}")
  if(version AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL rust_version)
    set(cargo "${candidate}")
  elseif(version)
    list(APPEND found "${candidate} is ${CMAKE_MATCH_1}")
  else()
    list(APPEND found "${candidate} does not run")
  endif()
endforeach()
if(NOT cargo)
  list(REMOVE_DUPLICATES found)
  list(JOIN found ", " found)
  if(NOT found)
    set(found "there is none")
  endif()
  message(FATAL_ERROR "The nodes need cargo ${rust_version} or newer: ${found}. "
    "What rosdep and apt install is older on Debian and Ubuntu. Install Rust from https://rustup.rs, then build again. "
    "Where the interfaces suffice, to echo or record: colcon build --cmake-args -DPOSTHORN_NODES=OFF")
endif()
set(path_of_cargo "")
if(NOT cargo STREQUAL in_path)
  # The rustc beside this cargo is then found too.
  string(REGEX REPLACE "/cargo$" ":" path_of_cargo "${cargo}")
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(COMMAND "${Python3_EXECUTABLE}" -I "${CMAKE_CURRENT_SOURCE_DIR}/scripts/libclang.py"
  RESULT_VARIABLE failed OUTPUT_VARIABLE why ERROR_VARIABLE why OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
if(failed)
  message(FATAL_ERROR "The nodes are built with libclang, which cannot be used: ${why}. Install it: apt-get install libclang-dev")
endif()
