// A model's tensors as MicroPython sees them: buffers that go in and out, and views.
#ifndef FIELDLOOP_MOD_TENSOR_H
#define FIELDLOOP_MOD_TENSOR_H

#include "mod_common.h"

// array's typecode of a tensor's elements: 'b', 'i' or 'f'; and what people call them.
char fl_mp_typecode(const fl_tensor_t *t);
const char *fl_mp_dtype_name(const fl_tensor_t *t);

// Raises unless `x` can be read as (out: written with) the elements of `t`: an array of its typecode, raw bytes of its
// length, or for int8 an array('f') of as many reals. Nothing is allocated.
void fl_mp_check_tensor(mp_obj_t x, const fl_tensor_t *t, mp_uint_t flags, const char *name);

// Copies `x`, checked before, to `place`; reals are quantised for an int8 tensor.
void fl_mp_take_tensor(mp_obj_t x, const fl_tensor_t *t, void *place);

// The same the other way round.
void fl_mp_give_tensor(mp_obj_t out, const fl_tensor_t *t, const void *place);

mp_obj_t fl_mp_shape_of(const fl_tensor_t *t);

// Model.input(i), output(i), tensor(t): memoryviews of bytes. Model.set_input(i, x), tensor_info(t), op(i).
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_input_obj;
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_output_obj;
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_tensor_obj;
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_set_input_obj;
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_tensor_info_obj;
extern const mp_obj_fun_builtin_fixed_t fl_mp_model_op_obj;

#endif
