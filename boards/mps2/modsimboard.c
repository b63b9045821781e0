// simboard: what only a simulated board has.
//
//   partitions()              the names of the flash's partitions
//   Partition(name)           see partition.c
//   fail_after(n)             cut the power after the n-th flash operation from now; 0 disarms
//   fail_inside(n, seed)      cut it within the n-th operation, see simflash.h
//   operations()              (erases, programs, violations) since the machine started
//   ticks()                   timer ticks since start (25 MHz, AN547: 20 MHz), 64 bits
//   count(f, *args)           (executed instructions of f(*args), its result); needs -icount
//   icount()                  True when the simulator counts instructions
#include "py/mphal.h"
#include "py/runtime.h"
#include "partition.h"
#include "simflash.h"

static mp_obj_t simboard_partitions(void) {
    mp_obj_t names[8];
    for (uint32_t i = 0; i < simflash_partition_count; i++) {
        names[i] = mp_obj_new_str_from_cstr(simflash_partitions[i].name);
    }
    return mp_obj_new_tuple(simflash_partition_count, names);
}
static MP_DEFINE_CONST_FUN_OBJ_0(simboard_partitions_obj, simboard_partitions);

static uint32_t get_u32(mp_obj_t value, qstr name) {
    mp_int_t n = mp_obj_get_int_truncated(value);
    if (mp_obj_is_small_int(value) && n < 0) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%q: expected 0 or more, got %d"), name, (int)n);
    }
    return (uint32_t)n;
}

static mp_obj_t simboard_fail_after(mp_obj_t n) {
    simflash_fail_after(get_u32(n, MP_QSTR_n));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(simboard_fail_after_obj, simboard_fail_after);

static mp_obj_t simboard_fail_inside(mp_obj_t n, mp_obj_t seed) {
    simflash_fail_inside(get_u32(n, MP_QSTR_n), get_u32(seed, MP_QSTR_seed));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(simboard_fail_inside_obj, simboard_fail_inside);

static mp_obj_t simboard_operations(void) {
    simflash_counts_t counts = simflash_counts();
    mp_obj_t items[3] = {
        mp_obj_new_int_from_uint(counts.erases),
        mp_obj_new_int_from_uint(counts.programs),
        mp_obj_new_int_from_uint(counts.violations),
    };
    return mp_obj_new_tuple(3, items);
}
static MP_DEFINE_CONST_FUN_OBJ_0(simboard_operations_obj, simboard_operations);

static mp_obj_t simboard_ticks(void) {
    return mp_obj_new_int_from_ull(port_ticks());
}
static MP_DEFINE_CONST_FUN_OBJ_0(simboard_ticks_obj, simboard_ticks);

static mp_obj_t nothing(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    (void)args;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR(nothing_obj, 0, nothing);

// Ticks of one call with interrupts masked; what the call raises is raised.
static uint64_t timed_call(mp_obj_t function, size_t n_args, const mp_obj_t *args, mp_obj_t *result) {
    nlr_buf_t nlr;
    uint32_t state = port_irq_disable();
    if (nlr_push(&nlr) != 0) {
        port_irq_restore(state);
        nlr_jump(nlr.ret_val);
    }
    uint64_t start = port_ticks();
    *result = mp_call_function_n_kw(function, n_args, 0, args);
    uint64_t ticks = port_ticks() - start;
    nlr_pop();
    port_irq_restore(state);
    return ticks;
}

static mp_obj_t simboard_count(size_t n_args, const mp_obj_t *args) {
    if (!port_has_icount()) {
        mp_raise_msg(&mp_type_RuntimeError,
            MP_ERROR_TEXT("instructions are not counted: start the board with icount"));
    }
    mp_obj_t result;
    mp_obj_t none;
    // A first call of nothing, so that both that are compared find the same state.
    uint64_t empty = timed_call(MP_OBJ_FROM_PTR(&nothing_obj), n_args - 1, args + 1, &none);
    uint64_t full = timed_call(args[0], n_args - 1, args + 1, &result);
    uint64_t spent = port_instructions(full) - port_instructions(empty);
    mp_obj_t items[2] = { mp_obj_new_int_from_ull(spent), result };
    return mp_obj_new_tuple(2, items);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR(simboard_count_obj, 1, simboard_count);

static mp_obj_t simboard_icount(void) {
    return mp_obj_new_bool(port_has_icount());
}
static MP_DEFINE_CONST_FUN_OBJ_0(simboard_icount_obj, simboard_icount);

static const mp_rom_map_elem_t simboard_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_simboard) },
    { MP_ROM_QSTR(MP_QSTR_icount), MP_ROM_PTR(&simboard_icount_obj) },
    { MP_ROM_QSTR(MP_QSTR_Partition), MP_ROM_PTR(&partition_type) },
    { MP_ROM_QSTR(MP_QSTR_partitions), MP_ROM_PTR(&simboard_partitions_obj) },
    { MP_ROM_QSTR(MP_QSTR_fail_after), MP_ROM_PTR(&simboard_fail_after_obj) },
    { MP_ROM_QSTR(MP_QSTR_fail_inside), MP_ROM_PTR(&simboard_fail_inside_obj) },
    { MP_ROM_QSTR(MP_QSTR_operations), MP_ROM_PTR(&simboard_operations_obj) },
    { MP_ROM_QSTR(MP_QSTR_ticks), MP_ROM_PTR(&simboard_ticks_obj) },
    { MP_ROM_QSTR(MP_QSTR_count), MP_ROM_PTR(&simboard_count_obj) },
};
static MP_DEFINE_CONST_DICT(simboard_globals, simboard_globals_table);

const mp_obj_module_t simboard_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&simboard_globals,
};
MP_REGISTER_MODULE(MP_QSTR_simboard, simboard_module);
