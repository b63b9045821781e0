# For ports built by CMake (rp2, esp32): -DUSER_C_MODULES=.../cmodules/fieldloop/micropython.cmake
set(FIELDLOOP_DIR ${CMAKE_CURRENT_LIST_DIR})

file(GLOB FIELDLOOP_SOURCES CONFIGURE_DEPENDS
    ${FIELDLOOP_DIR}/mod_*.c
    ${FIELDLOOP_DIR}/base/*.c
    ${FIELDLOOP_DIR}/core/*.c
    ${FIELDLOOP_DIR}/kernels/*.c
    ${FIELDLOOP_DIR}/learn/*.c
    ${FIELDLOOP_DIR}/link/*.c
    ${FIELDLOOP_DIR}/store/*.c)
file(GLOB FIELDLOOP_HOT_SOURCES CONFIGURE_DEPENDS
    ${FIELDLOOP_DIR}/kernels/*.c
    ${FIELDLOOP_DIR}/learn/*.c)

add_library(usermod_fieldloop INTERFACE)
target_sources(usermod_fieldloop INTERFACE ${FIELDLOOP_SOURCES})
target_include_directories(usermod_fieldloop INTERFACE ${FIELDLOOP_DIR}/include ${FIELDLOOP_DIR})

# Float results must be the host's to the bit: no contraction to fused multiply-add. Said for each file, too:
# the port for Zephyr takes a module's sources and leaves its options behind.
set(FIELDLOOP_EXACT -ffp-contract=off -fno-math-errno)
target_compile_options(usermod_fieldloop INTERFACE ${FIELDLOOP_EXACT})
set_source_files_properties(${FIELDLOOP_SOURCES} PROPERTIES COMPILE_OPTIONS "${FIELDLOOP_EXACT}")

# Where the time goes, speed is worth the bytes, whatever the port builds for; -DFIELDLOOP_HOT_OPTIONS=-Os for a
# part that lacks the bytes.
if(NOT DEFINED FIELDLOOP_HOT_OPTIONS)
    set(FIELDLOOP_HOT_OPTIONS -O2)
endif()
set_source_files_properties(${FIELDLOOP_HOT_SOURCES} PROPERTIES
    COMPILE_OPTIONS "${FIELDLOOP_EXACT};${FIELDLOOP_HOT_OPTIONS}")

target_link_libraries(usermod INTERFACE usermod_fieldloop)
