# MPS3 with application note 547: Cortex-M55 with Helium. The compiler has it for integers only: floats go one by one, as
# everywhere, but where learn/axpy_mve.c proves that four at a time round alike (FL_MVE_F32).
CFLAGS_CPU = -mthumb -mcpu=cortex-m55+nomve.fp -mfloat-abi=hard -DFL_MVE_F32=1
CFLAGS += -DPORT_MPS3=1 -DMICROPY_HW_BOARD_NAME='"MPS3-AN547 (QEMU)"' -DMICROPY_HW_MCU_NAME='"Cortex-M55"'
MPY_CROSS_FLAGS += -march=armv7emsp
HWSQRT = 1
GCHELPER_C = shared/runtime/gchelper_generic.c
GCHELPER_O =
