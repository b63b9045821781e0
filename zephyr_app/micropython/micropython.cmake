# For MicroPython on Zephyr: the C module _fieldloop, and the ROMFS of a board whose devicetree has a partition for
# one. Without that, cmodules/fieldloop/micropython.cmake alone is enough.
include(${CMAKE_CURRENT_LIST_DIR}/../../cmodules/fieldloop/micropython.cmake)

add_library(usermod_fieldloop_rom INTERFACE)
target_sources(usermod_fieldloop_rom INTERFACE ${CMAKE_CURRENT_LIST_DIR}/rom.c)
target_include_directories(usermod_fieldloop_rom INTERFACE ${CMAKE_CURRENT_LIST_DIR}) # fieldloop_mpconfig.h
target_link_libraries(usermod INTERFACE usermod_fieldloop_rom)
