# MPS3 with application note 547: Cortex-M55 with Helium for integers. Floats go one by one, as everywhere.
CFLAGS_CPU = -mthumb -mcpu=cortex-m55+nomve.fp -mfloat-abi=hard
CFLAGS += -DPORT_MPS3=1 -DMICROPY_HW_BOARD_NAME='"MPS3-AN547 (QEMU)"' -DMICROPY_HW_MCU_NAME='"Cortex-M55"'
MPY_CROSS_FLAGS += -march=armv7emsp
HWSQRT = 1
GCHELPER_C = shared/runtime/gchelper_generic.c
GCHELPER_O =
