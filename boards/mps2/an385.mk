# MPS2 with application note 385: Cortex-M3, no FPU.
CFLAGS_CPU = -mthumb -mcpu=cortex-m3 -mfloat-abi=soft
CFLAGS += -DMICROPY_HW_BOARD_NAME='"MPS2-AN385 (QEMU)"' -DMICROPY_HW_MCU_NAME='"Cortex-M3"'
MPY_CROSS_FLAGS += -march=armv7m
