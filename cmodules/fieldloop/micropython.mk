# For ports built by make: make USER_C_MODULES=.../cmodules
FIELDLOOP_DIR := $(USERMOD_DIR)

# The binding is scanned for QSTRs, the core is not: it knows no MicroPython.
SRC_USERMOD_C += $(sort $(wildcard $(FIELDLOOP_DIR)/mod_*.c))
SRC_USERMOD_LIB_C += $(sort $(foreach folder,base core kernels learn link store,\
    $(wildcard $(FIELDLOOP_DIR)/$(folder)/*.c)))

# Float results must be the host's to the bit: no contraction to fused multiply-add.
CFLAGS_USERMOD += -I$(FIELDLOOP_DIR)/include -I$(FIELDLOOP_DIR) -ffp-contract=off -fno-math-errno

# Most ports build for size. Where the time goes, speed is worth the bytes.
$(BUILD)/$(notdir $(FIELDLOOP_DIR))/kernels/%.o: CFLAGS += -O2
$(BUILD)/$(notdir $(FIELDLOOP_DIR))/learn/%.o: CFLAGS += -O2
