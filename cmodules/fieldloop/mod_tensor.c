// A model's tensors: buffers that go in and out, views into the arena and the image, what an operator is.
#include <string.h>

#include "mod_tensor.h"

#include "py/binary.h"
#include "py/objarray.h"

#include "core/image.h"
#include "fieldloop/fl_quantize.h"

char fl_mp_typecode(const fl_tensor_t *t) {
    return t->dtype == FL_F32 ? 'f' : t->dtype == FL_I32 ? 'i' : 'b';
}

const char *fl_mp_dtype_name(const fl_tensor_t *t) {
    return t->dtype == FL_F32 ? "float32" : t->dtype == FL_I32 ? "int32" : "int8";
}

// ---- buffers

static bool is_raw(int typecode) {
    return typecode == 'B' || typecode == BYTEARRAY_TYPECODE;
}

// Are elements of `typecode` those of `t`? 'l' is an int32 where it has 4 bytes.
static bool is_own(int typecode, const fl_tensor_t *t) {
    return typecode == fl_mp_typecode(t)
        || (t->dtype == FL_I32 && typecode == 'l' && mp_binary_get_size('@', 'l', NULL) == sizeof(int32_t));
}

void fl_mp_check_tensor(mp_obj_t x, const fl_tensor_t *t, mp_uint_t flags, const char *name) {
    mp_buffer_info_t buffer;
    fl_mp_get_buffer(x, &buffer, flags, name);
    int typecode = buffer.typecode & 0x7f;
    if (typecode == 'f') { // of f32 the same, for int8 quantised
        if (t->dtype == FL_I32) {
            mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%s: expected int32 elements ('i'), got 'f'"), name);
        }
        unsigned elements = (unsigned)fl_elements(t);
        if (buffer.len != elements * sizeof(float)) {
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s: expected %u floats, got %u"), name, elements,
                (unsigned)(buffer.len / sizeof(float)));
        }
        return;
    }
    if (!is_raw(typecode) && !is_own(typecode, t)) {
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%s: expected %s elements ('%c' or 'B'), got '%c'"), name,
            fl_mp_dtype_name(t), fl_mp_typecode(t), typecode);
    }
    if (buffer.len != t->bytes) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s: expected %u bytes, got %u"), name,
            (unsigned)t->bytes, (unsigned)buffer.len);
    }
}

// May be one of our own views: the places may overlap.
void fl_mp_take_tensor(mp_obj_t x, const fl_tensor_t *t, void *place) {
    mp_buffer_info_t buffer;
    mp_get_buffer_raise(x, &buffer, MP_BUFFER_READ);
    if (t->dtype == FL_I8 && (buffer.typecode & 0x7f) == 'f') {
        fl_quantize(t, buffer.buf, place, t->bytes);
    } else {
        memmove(place, buffer.buf, t->bytes);
    }
}

void fl_mp_give_tensor(mp_obj_t out, const fl_tensor_t *t, const void *place) {
    mp_buffer_info_t buffer;
    mp_get_buffer_raise(out, &buffer, MP_BUFFER_WRITE);
    if (t->dtype == FL_I8 && (buffer.typecode & 0x7f) == 'f') {
        fl_dequantize(t, place, buffer.buf, t->bytes);
    } else {
        memmove(buffer.buf, place, t->bytes);
    }
}

// ---- views

static uint32_t index_below(mp_int_t i, uint32_t count, const char *what) {
    if (i < 0 || (mp_uint_t)i >= count) {
        mp_raise_msg_varg(&mp_type_IndexError, MP_ERROR_TEXT("%s: expected 0 to %d, got %d"), what, (int)count - 1,
            (int)i);
    }
    return (uint32_t)i;
}

// The bytes of tensor `t`: a constant's in the image, an activation's in the arena, which then is never freed by hand.
static mp_obj_t view_of(fl_mp_model_t *self, uint32_t t, bool writable) {
    const fl_tensor_t *info = &self->m.tensors[t];
    const uint8_t *place = fl_model_tensor(&self->m, t);
    if (info->kind == FL_CONSTANT) {
        return fl_mp_view(self->source, (size_t)(place - self->m.image), info->bytes);
    }
    if (place == NULL) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("tensor %d is nowhere whole: the plan is tiled"), (int)t);
    }
    self->viewed = true;
    mp_obj_t view = fl_mp_view_block(self->m.arena, (size_t)(place - self->m.arena), info->bytes);
    if (writable) {
        ((mp_obj_array_t *)MP_OBJ_TO_PTR(view))->typecode |= MP_OBJ_ARRAY_TYPECODE_FLAG_RW;
    }
    return view;
}

static mp_obj_t model_input(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    return view_of(self, self->m.io[index_below(i, self->m.input_count, "input")], true);
}
MP_DEFINE_CONST_FUN_OBJ_2(fl_mp_model_input_obj, model_input);

static mp_obj_t model_output(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    uint32_t at = self->m.input_count + index_below(i, self->m.output_count, "output");
    return view_of(self, self->m.io[at], false);
}
MP_DEFINE_CONST_FUN_OBJ_2(fl_mp_model_output_obj, model_output);

static mp_obj_t model_tensor(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    return view_of(self, index_below(i, self->m.tensor_count, "tensor"), false);
}
MP_DEFINE_CONST_FUN_OBJ_2(fl_mp_model_tensor_obj, model_tensor);

// set_input(i, x): x as predict takes it. Allocates nothing.
static mp_obj_t model_set_input(mp_obj_t self_in, mp_obj_t index, mp_obj_t x) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    uint32_t at = index_below(i, self->m.input_count, "input");
    const fl_tensor_t *info = fl_model_input_info(&self->m, at);
    fl_mp_check_tensor(x, info, MP_BUFFER_READ, "x");
    fl_mp_take_tensor(x, info, fl_model_input(&self->m, at));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(fl_mp_model_set_input_obj, model_set_input);

// ---- what the image says

mp_obj_t fl_mp_shape_of(const fl_tensor_t *t) {
    mp_obj_t items[4];
    size_t n = t->ndim < 4 ? t->ndim : 4;
    for (size_t i = 0; i < n; ++i) {
        items[i] = mp_obj_new_int(t->shape[i]);
    }
    return mp_obj_new_tuple(n, items);
}

// tensor_info(t) -> (typecode, shape, scale, zero point); scale 0.0 where there is none, or one a channel.
static mp_obj_t model_tensor_info(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    const fl_tensor_t *t = &self->m.tensors[index_below(i, self->m.tensor_count, "tensor")];
    char typecode = fl_mp_typecode(t);
    mp_obj_t items[4] = {
        mp_obj_new_str(&typecode, 1),
        fl_mp_shape_of(t),
        mp_obj_new_float((mp_float_t)t->scale),
        mp_obj_new_int(t->zero_point),
    };
    return mp_obj_new_tuple(4, items);
}
MP_DEFINE_CONST_FUN_OBJ_2(fl_mp_model_tensor_info_obj, model_tensor_info);

// op(i) -> (opcode, input tensors, output tensor, multiply-accumulates).
static mp_obj_t model_op(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    uint32_t at = index_below(i, self->m.op_count, "operator");
    const fl_op_t *op = &self->m.ops[at];
    mp_obj_t inputs[FL_CONCAT_MAX];
    size_t n = 0;
    for (uint32_t k = 0; k < fl_op_places(op); ++k) {
        if (fl_op_input(op, k) != FL_NO_TENSOR) {
            inputs[n++] = MP_OBJ_NEW_SMALL_INT(fl_op_input(op, k));
        }
    }
    mp_obj_t items[4] = {
        MP_OBJ_NEW_SMALL_INT(op->opcode),
        mp_obj_new_tuple(n, inputs),
        MP_OBJ_NEW_SMALL_INT(op->out[0]),
        mp_obj_new_int_from_ull(fl_model_op_macs(&self->m, at)),
    };
    return mp_obj_new_tuple(4, items);
}
MP_DEFINE_CONST_FUN_OBJ_2(fl_mp_model_op_obj, model_op);
