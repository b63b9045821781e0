// _fieldloop.Model: an image executed in place, with an arena on MicroPython's heap.
#include <string.h>

#include "mod_tensor.h"

#include "py/objstr.h"

#include "fieldloop/fl_quantize.h"

static const fl_image_header_t *header_of(const fl_mp_model_t *self) {
    return (const void *)self->m.image;
}

// Is the image that was checked still there? A bytearray that grew has moved, and the core would read freed
// memory; a push erases or replaces the start of a slot first, and nobody checked what follows.
static bool is_open(const fl_mp_model_t *self) {
    mp_buffer_info_t image;
    return self->m.image != NULL && mp_get_buffer(self->source, &image, MP_BUFFER_READ)
        && image.buf == self->m.image && image.len >= self->m.image_bytes && header_of(self)->crc32 == self->crc;
}

fl_mp_model_t *fl_mp_get_model(mp_obj_t object) {
    fl_mp_model_t *self = MP_OBJ_TO_PTR(object);
    if (self->m.image == NULL) {
        mp_raise_ValueError(MP_ERROR_TEXT("model is closed; open it again"));
    }
    if (!is_open(self)) {
        mp_raise_ValueError(MP_ERROR_TEXT("the image moved, shrank or was overwritten; open the model again"));
    }
    return self;
}

void fl_mp_model_bind(fl_mp_model_t *self, uint32_t plan_kind) {
    size_t bytes = fl_model_arena_bytes(&self->m, plan_kind);
    if (bytes == 0) {
        mp_raise_ValueError(plan_kind == FL_PLAN_LEARN
            ? MP_ERROR_TEXT("image carries no learning plan; compile it with trainable layers")
            : MP_ERROR_TEXT("image carries no inference plan; compile it again"));
    }
    if (self->m.arena != NULL && self->m.arena_bytes == bytes) {
        (void)fl_model_bind(&self->m, plan_kind, self->m.arena, bytes);
        return;
    }
    // The old arena goes first: a small heap has no room for both.
    size_t old_bytes = self->m.arena_bytes;
    if (self->m.arena != NULL) {
        if (!self->viewed) { // else a view may still read it: the collector decides
            m_del(uint8_t, self->m.arena, old_bytes);
        }
        self->m.arena = NULL;
        self->viewed = false;
    }
    int error = FL_ENOMEM;
    uint8_t *arena = m_malloc_maybe(bytes);
    if (arena != NULL) {
        error = fl_model_bind(&self->m, plan_kind, arena, bytes);
    } else if (old_bytes != 0) {
        uint8_t *back = m_malloc_maybe(old_bytes);
        if (back != NULL && fl_model_bind(&self->m, FL_PLAN_INFER, back, old_bytes) == FL_OK) {
            fl_mp_raise_no_memory(bytes, "arena");
        }
    }
    if (error != FL_OK) {
        self->m.image = NULL; // closed rather than half there
        if (arena == NULL) {
            fl_mp_raise_no_memory(bytes, "arena");
        }
        fl_mp_raise(error, MP_ERROR_TEXT("the image's plan was refused; compile it again"));
    }
}

static mp_obj_t model_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, 1, false);
    mp_buffer_info_t image;
    fl_mp_get_buffer(args[0], &image, MP_BUFFER_READ, "image");
    fl_mp_model_t *self = mp_obj_malloc_with_finaliser(fl_mp_model_t, type);
    self->source = args[0];
    self->learner = MP_OBJ_NULL;
    self->viewed = false;
    memset(&self->m, 0, sizeof(self->m));
    int error = fl_model_open(&self->m, image.buf, image.len);
    if (error != FL_OK) {
        self->m.image = NULL;
        fl_mp_raise_image(error, image.len);
    }
    self->crc = header_of(self)->crc32;
    fl_mp_model_bind(self, FL_PLAN_INFER);
    return MP_OBJ_FROM_PTR(self);
}

static mp_obj_t model_deinit(mp_obj_t self_in) {
    fl_mp_model_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->learner != MP_OBJ_NULL) {
        fl_mp_learner_close(self->learner);
    }
    memset(&self->m, 0, sizeof(self->m));
    self->source = mp_const_none;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(model_deinit_obj, model_deinit);

static mp_obj_t model_exit(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    return model_deinit(args[0]);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(model_exit_obj, 4, 4, model_exit);

// ---- running

// The buffers of `count` inputs or outputs: one object, or a tuple or list of them.
static mp_obj_t *each(mp_obj_t *given, size_t count, const char *name) {
    if (!mp_obj_is_type(*given, &mp_type_tuple) && !mp_obj_is_type(*given, &mp_type_list)) {
        if (count != 1) {
            mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%s: expected a tuple of %u buffers, got %s"), name,
                (unsigned)count, mp_obj_get_type_str(*given));
        }
        return given;
    }
    size_t n;
    mp_obj_t *items;
    mp_obj_get_array(*given, &n, &items);
    if (n != count) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s: expected %u buffers, got %u"), name,
            (unsigned)count, (unsigned)n);
    }
    return items;
}

static void run_ops(fl_mp_model_t *self, uint32_t first, uint32_t end) {
    int error = fl_model_run_ops(&self->m, first, end);
    if (error != FL_OK) {
        fl_mp_raise(error, MP_ERROR_TEXT("the model did not run; open it again"));
    }
}

// predict(x, out=None) -> class: runs the model on one sample; several inputs or outputs are tuples or lists. The class
// is the place of the first output's highest score. Allocates nothing.
static mp_obj_t model_predict(size_t n_args, const mp_obj_t *args) {
    fl_mp_model_t *self = fl_mp_get_model(args[0]);
    const fl_model_t *m = &self->m;
    mp_obj_t one_x = args[1], one_out = n_args > 2 ? args[2] : mp_const_none;
    mp_obj_t *x = each(&one_x, m->input_count, "x");
    mp_obj_t *out = one_out == mp_const_none ? NULL : each(&one_out, m->output_count, "out");
    // all are checked before the run: a bad call changes nothing
    for (uint32_t i = 0; i < m->input_count; ++i) {
        fl_mp_check_tensor(x[i], fl_model_input_info(m, i), MP_BUFFER_READ, "x");
    }
    for (uint32_t i = 0; out != NULL && i < m->output_count; ++i) {
        fl_mp_check_tensor(out[i], fl_model_output_info(m, i), MP_BUFFER_WRITE, "out");
    }
    for (uint32_t i = 0; i < m->input_count; ++i) {
        fl_mp_take_tensor(x[i], fl_model_input_info(m, i), fl_model_input(m, i));
    }
    run_ops(self, 0, m->op_count);
    mp_obj_t best = MP_OBJ_NEW_SMALL_INT(fl_argmax(fl_model_output_info(m, 0), fl_model_output(m, 0)));
    for (uint32_t i = 0; out != NULL && i < m->output_count; ++i) {
        fl_mp_give_tensor(out[i], fl_model_output_info(m, i), fl_model_output(m, i));
    }
    return best;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(model_predict_obj, 2, 3, model_predict);

// run_ops(first, end): runs these operators on what lies in the arena. Allocates nothing.
static mp_obj_t model_run_ops(mp_obj_t self_in, mp_obj_t first_in, mp_obj_t end_in) {
    mp_int_t first = mp_obj_get_int(first_in), end = mp_obj_get_int(end_in);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    if (first < 0 || end < first || (mp_uint_t)end > self->m.op_count) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("operators: expected 0 <= first <= end <= %u, got %d, %d"),
            (unsigned)self->m.op_count, (int)first, (int)end);
    }
    run_ops(self, (uint32_t)first, (uint32_t)end);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(model_run_ops_obj, model_run_ops);

// quantize(x, out): the int8 sample of floats, as predict() would see it.
static mp_obj_t model_quantize(mp_obj_t self_in, mp_obj_t x, mp_obj_t out_in) {
    const fl_tensor_t *info = fl_model_input_info(&fl_mp_get_model(self_in)->m, 0);
    mp_buffer_info_t in, out;
    if (info->dtype != FL_I8) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("quantize: expected a model of int8 input, got %s"),
            fl_mp_dtype_name(info));
    }
    if (mp_obj_is_str(x) || !mp_get_buffer(x, &in, MP_BUFFER_READ) || (in.typecode & 0x7f) != 'f') {
        mp_raise_TypeError(MP_ERROR_TEXT("x: expected array('f')"));
    }
    fl_mp_check_tensor(x, info, MP_BUFFER_READ, "x");
    fl_mp_get_bytes(out_in, &out, MP_BUFFER_WRITE, info->bytes, "out");
    fl_quantize(info, in.buf, out.buf, info->bytes);
    return out_in;
}
static MP_DEFINE_CONST_FUN_OBJ_3(model_quantize_obj, model_quantize);

// ---- how much of the arena a run really touches

static mp_obj_t model_paint(mp_obj_t self_in, mp_obj_t pattern) {
    int paint = (int)(mp_obj_get_int(pattern) & 0xff);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    memset(self->m.arena, paint, self->m.arena_bytes);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(model_paint_obj, model_paint);

static mp_obj_t model_touched(mp_obj_t self_in, mp_obj_t pattern) {
    uint8_t paint = (uint8_t)mp_obj_get_int(pattern);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    return mp_obj_new_int_from_uint(fl_mp_touched(self->m.arena, self->m.arena_bytes, paint));
}
static MP_DEFINE_CONST_FUN_OBJ_2(model_touched_obj, model_touched);

// ---- what the image says

static mp_obj_t labels_of(const fl_model_t *m) {
    uint32_t cursor = 0, bytes, count;
    const void *data;
    if (fl_image_section(m->image, FL_SECTION_LABELS, &cursor, &data, &bytes) != FL_OK) {
        return mp_const_empty_tuple;
    }
    memcpy(&count, data, sizeof(count));
    const char *text = (const char *)data + sizeof(count);
    mp_obj_tuple_t *labels = MP_OBJ_TO_PTR(mp_obj_new_tuple(count, NULL));
    for (uint32_t i = 0; i < count; ++i) { // fl_image_check proved that count whole strings are there
        size_t n = strlen(text);
        labels->items[i] = mp_obj_new_str(text, n);
        text += n + 1;
    }
    return MP_OBJ_FROM_PTR(labels);
}

// sample(i) -> (label, int8 view) of the samples that travel with the image; None past the last one.
static mp_obj_t model_sample(mp_obj_t self_in, mp_obj_t index) {
    mp_int_t i = mp_obj_get_int(index);
    fl_mp_model_t *self = fl_mp_get_model(self_in);
    uint32_t cursor = 0, bytes;
    const void *data;
    if (fl_image_section(self->m.image, FL_SECTION_REHEARSAL, &cursor, &data, &bytes) != FL_OK) {
        return mp_const_none;
    }
    const fl_rehearsal_set_t *set = data;
    if (i < 0 || (mp_uint_t)i >= set->count) {
        return mp_const_none;
    }
    const uint8_t *label = (const uint8_t *)(set + 1);
    size_t from = sizeof(*set) + ((set->count + 15u) & ~(size_t)15u) + (size_t)i * set->sample_bytes;
    size_t start = (size_t)((const uint8_t *)data - self->m.image);
    mp_obj_t pair[2] = {
        MP_OBJ_NEW_SMALL_INT(label[i]),
        fl_mp_view(self->source, start + from, set->sample_bytes),
    };
    return mp_obj_new_tuple(2, pair);
}
static MP_DEFINE_CONST_FUN_OBJ_2(model_sample_obj, model_sample);

static uint32_t samples_of(const fl_model_t *m) {
    uint32_t cursor = 0, bytes;
    const void *data;
    if (fl_image_section(m->image, FL_SECTION_REHEARSAL, &cursor, &data, &bytes) != FL_OK) {
        return 0;
    }
    return ((const fl_rehearsal_set_t *)data)->count;
}

static uint32_t trainable_of(const fl_model_t *m) {
    uint32_t cursor = 0, bytes;
    const void *data;
    return fl_image_section(m->image, FL_SECTION_LEARN, &cursor, &data, &bytes) == FL_OK
           ? bytes / (uint32_t)sizeof(fl_trainable_t) : 0;
}

static mp_obj_t macs_of(const fl_model_t *m) {
    uint64_t macs = 0;
    for (uint32_t op = 0; op < m->op_count; ++op) {
        macs += fl_model_op_macs(m, op);
    }
    return mp_obj_new_int_from_ull(macs);
}

static mp_obj_t numbers_of(const uint16_t *tensors, size_t n) {
    mp_obj_tuple_t *tuple = MP_OBJ_TO_PTR(mp_obj_new_tuple(n, NULL));
    for (size_t i = 0; i < n; ++i) {
        tuple->items[i] = MP_OBJ_NEW_SMALL_INT(tensors[i]);
    }
    return MP_OBJ_FROM_PTR(tuple);
}

static void model_attr(mp_obj_t self_in, qstr attr, mp_obj_t *dest) {
    fl_mp_model_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] != MP_OBJ_NULL) {
        return; // nothing can be set
    }
    const fl_model_t *m = &self->m;
    bool open = is_open(self);
    const fl_tensor_t *x = open ? fl_model_input_info(m, 0) : NULL;
    const fl_tensor_t *y = open ? fl_model_output_info(m, 0) : NULL;
    const fl_image_header_t *header = header_of(self);
    mp_obj_t value = MP_OBJ_NULL;
    switch (attr) {
        case MP_QSTR_closed: value = mp_obj_new_bool(!open); break;
        case MP_QSTR_input_shape: value = open ? fl_mp_shape_of(x) : mp_const_none; break;
        case MP_QSTR_output_shape: value = open ? fl_mp_shape_of(y) : mp_const_none; break;
        case MP_QSTR_input_bytes: value = mp_obj_new_int_from_uint(open ? x->bytes : 0); break;
        case MP_QSTR_output_bytes: value = mp_obj_new_int_from_uint(open ? y->bytes : 0); break;
        case MP_QSTR_input_scale: value = open ? mp_obj_new_float((mp_float_t)x->scale) : mp_const_none; break;
        case MP_QSTR_output_scale: value = open ? mp_obj_new_float((mp_float_t)y->scale) : mp_const_none; break;
        case MP_QSTR_input_zero_point: value = open ? mp_obj_new_int(x->zero_point) : mp_const_none; break;
        case MP_QSTR_output_zero_point: value = open ? mp_obj_new_int(y->zero_point) : mp_const_none; break;
        case MP_QSTR_image_bytes: value = mp_obj_new_int_from_uint(open ? header->total_bytes : 0); break;
        case MP_QSTR_arena_bytes: value = mp_obj_new_int_from_uint(m->arena_bytes); break;
        case MP_QSTR_uid:
            value = open ? mp_obj_new_bytes(header->uid, sizeof(header->uid)) : mp_const_none;
            break;
        case MP_QSTR_op_count: value = mp_obj_new_int_from_uint(open ? m->op_count : 0); break;
        case MP_QSTR_tensor_count: value = mp_obj_new_int_from_uint(open ? m->tensor_count : 0); break;
        case MP_QSTR_inputs: value = open ? numbers_of(m->io, m->input_count) : mp_const_empty_tuple; break;
        case MP_QSTR_outputs:
            value = open ? numbers_of(m->io + m->input_count, m->output_count) : mp_const_empty_tuple;
            break;
        case MP_QSTR_labels: value = open ? labels_of(m) : mp_const_empty_tuple; break;
        case MP_QSTR_macs: value = open ? macs_of(m) : MP_OBJ_NEW_SMALL_INT(0); break;
        case MP_QSTR_samples: value = mp_obj_new_int_from_uint(open ? samples_of(m) : 0); break;
        case MP_QSTR_trainable: value = mp_obj_new_int_from_uint(open ? trainable_of(m) : 0); break;
        default: dest[1] = MP_OBJ_SENTINEL; return; // a method
    }
    dest[0] = value;
}

// "1x8x8x1 int8, 4 float32"
static void print_tensors(const mp_print_t *print, const fl_model_t *m, const uint16_t *tensors, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        const fl_tensor_t *t = &m->tensors[tensors[i]];
        for (size_t k = 0; k < t->ndim && k < 4; ++k) {
            mp_printf(print, k > 0 ? "x%d" : i > 0 ? ", %d" : "%d", (int)t->shape[k]);
        }
        mp_printf(print, " %s", fl_mp_dtype_name(t));
    }
}

static void model_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    fl_mp_model_t *self = MP_OBJ_TO_PTR(self_in);
    if (!is_open(self)) {
        mp_print_str(print, "Model(closed)");
        return;
    }
    const fl_image_header_t *header = header_of(self);
    mp_print_str(print, "Model(");
    print_tensors(print, &self->m, self->m.io, self->m.input_count);
    mp_print_str(print, " -> ");
    print_tensors(print, &self->m, self->m.io + self->m.input_count, self->m.output_count);
    mp_printf(print, ", %u operators, image %u bytes, arena %u bytes%s)", (unsigned)self->m.op_count,
        (unsigned)header->total_bytes, (unsigned)self->m.arena_bytes,
        self->learner == MP_OBJ_NULL ? "" : ", learning");
}

static const mp_rom_map_elem_t model_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_predict), MP_ROM_PTR(&model_predict_obj) },
    { MP_ROM_QSTR(MP_QSTR_run_ops), MP_ROM_PTR(&model_run_ops_obj) },
    { MP_ROM_QSTR(MP_QSTR_input), MP_ROM_PTR(&fl_mp_model_input_obj) },
    { MP_ROM_QSTR(MP_QSTR_output), MP_ROM_PTR(&fl_mp_model_output_obj) },
    { MP_ROM_QSTR(MP_QSTR_set_input), MP_ROM_PTR(&fl_mp_model_set_input_obj) },
    { MP_ROM_QSTR(MP_QSTR_tensor), MP_ROM_PTR(&fl_mp_model_tensor_obj) },
    { MP_ROM_QSTR(MP_QSTR_tensor_info), MP_ROM_PTR(&fl_mp_model_tensor_info_obj) },
    { MP_ROM_QSTR(MP_QSTR_op), MP_ROM_PTR(&fl_mp_model_op_obj) },
    { MP_ROM_QSTR(MP_QSTR_quantize), MP_ROM_PTR(&model_quantize_obj) },
    { MP_ROM_QSTR(MP_QSTR_sample), MP_ROM_PTR(&model_sample_obj) },
    { MP_ROM_QSTR(MP_QSTR_paint), MP_ROM_PTR(&model_paint_obj) },
    { MP_ROM_QSTR(MP_QSTR_touched), MP_ROM_PTR(&model_touched_obj) },
    { MP_ROM_QSTR(MP_QSTR_deinit), MP_ROM_PTR(&model_deinit_obj) },
    { MP_ROM_QSTR(MP_QSTR___del__), MP_ROM_PTR(&model_deinit_obj) },
    { MP_ROM_QSTR(MP_QSTR___enter__), MP_ROM_PTR(&mp_identity_obj) },
    { MP_ROM_QSTR(MP_QSTR___exit__), MP_ROM_PTR(&model_exit_obj) },
};
static MP_DEFINE_CONST_DICT(model_locals, model_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    fl_mp_type_model,
    MP_QSTR_Model,
    MP_TYPE_FLAG_NONE,
    make_new, model_make_new,
    print, model_print,
    attr, model_attr,
    locals_dict, &model_locals
    );
