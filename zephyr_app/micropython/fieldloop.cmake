# What MicroPython's port for Zephyr is told to build fieldloop in:
#
#   cmake ... -DCMAKE_PROJECT_micropython_INCLUDE=<this file>
#
# CMake includes this file at the end of the port's project() call: the configuration is known, the sources are not
# gathered yet.
if(NOT USER_C_MODULES)
    set(USER_C_MODULES ${CMAKE_CURRENT_LIST_DIR}/micropython.cmake)
endif()
set(CONFIG_MICROPY_FROZEN_MANIFEST ${CMAKE_CURRENT_LIST_DIR}/manifest.py)

# The manifest needs nothing of micropython-lib, but the port wants to see a README.md where that would be.
set(MICROPY_LIB_DIR ${CMAKE_CURRENT_LIST_DIR})

if(CONFIG_FLASH_SIZE GREATER 0 AND CONFIG_FLASH_SIZE LESS_EQUAL 256) # KB
    set(FIELDLOOP_HOT_OPTIONS -Oz)
    set(MICROPY_ROM_TEXT_COMPRESSION ON)
    set(MICROPY_MPY_TOOL_FLAGS -mlongint-impl=longlong) # as in fieldloop_mpconfig.h
endif()

# The port knows USER_C_MODULES from 1.29 on. Before, this brings them in: the port gathers its sources and then
# calls zephyr_library_named() to make the library of them, which is the moment at which sources can still be added,
# so that call is wrapped. The name with an underscore in front is the command as it was, by a habit of CMake that no
# manual promises.
file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/../../py/mpconfig.h FIELDLOOP_MICROPY_VERSION
    REGEX "^#define MICROPY_VERSION_(MAJOR|MINOR) ")
list(TRANSFORM FIELDLOOP_MICROPY_VERSION REPLACE "[^0-9]" "")
list(JOIN FIELDLOOP_MICROPY_VERSION "." FIELDLOOP_MICROPY_VERSION)

if(FIELDLOOP_MICROPY_VERSION VERSION_LESS 1.29)
    macro(zephyr_library_named name)
        if("${name}" STREQUAL "${MICROPY_TARGET}" AND NOT COMMAND usermod_gather_sources)
            include(${MICROPY_DIR}/py/usermod.cmake)
            list(APPEND MICROPY_SOURCE_QSTR ${MICROPY_SOURCE_USERMOD})
            list(APPEND MICROPY_INC_CORE ${MICROPY_INC_USERMOD})
        endif()
        _zephyr_library_named(${name})
    endmacro()
endif()
