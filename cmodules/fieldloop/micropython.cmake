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

# Float results must be the host's to the bit: no contraction to fused multiply-add.
target_compile_options(usermod_fieldloop INTERFACE -ffp-contract=off -fno-math-errno)

# Where the time goes, speed is worth the bytes, whatever the port builds for.
set_source_files_properties(${FIELDLOOP_HOT_SOURCES} PROPERTIES COMPILE_OPTIONS -O2)

target_link_libraries(usermod INTERFACE usermod_fieldloop)
