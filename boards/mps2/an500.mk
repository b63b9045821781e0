# MPS2 with application note 500: Cortex-M7, used with a single precision FPU.
CFLAGS_CPU = -mthumb -mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard
CFLAGS += -DMICROPY_HW_BOARD_NAME='"MPS2-AN500 (QEMU)"' -DMICROPY_HW_MCU_NAME='"Cortex-M7"'
MPY_CROSS_FLAGS += -march=armv7emsp
HWSQRT = 1
