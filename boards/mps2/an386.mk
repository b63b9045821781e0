# MPS2 with application note 386: Cortex-M4F, single precision FPU.
CFLAGS_CPU = -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
CFLAGS += -DMICROPY_HW_BOARD_NAME='"MPS2-AN386 (QEMU)"' -DMICROPY_HW_MCU_NAME='"Cortex-M4F"'
MPY_CROSS_FLAGS += -march=armv7emsp
HWSQRT = 1
