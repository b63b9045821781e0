// The image reader: header, checksum, section table, and the order in which everything else is proven.
#include "fieldloop/fl_image.h"

#include "core/image.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_error.h"

_Static_assert(sizeof(fl_image_header_t) == 64, "lies in flash");
_Static_assert(sizeof(fl_section_t) == 16, "lies in flash");
_Static_assert(sizeof(fl_tensor_t) == 44, "lies in flash");
_Static_assert(sizeof(fl_requant_t) == 8, "lies in flash");
_Static_assert(sizeof(fl_conv_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_add_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_softmax_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_mul_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_concat_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_pad_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_transpose_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_slice_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_mean_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_unary_params_t) == 48, "lies in flash");
_Static_assert(sizeof(fl_op_t) == 80, "lies in flash");
_Static_assert(sizeof(fl_plan_t) == 16, "lies in flash");
_Static_assert(sizeof(fl_tiles_t) == 16, "lies in flash");
_Static_assert(sizeof(fl_plan_step_t) == 64, "lies in flash");
_Static_assert(sizeof(fl_trainable_t) == 16, "lies in flash");
_Static_assert(sizeof(fl_rehearsal_set_t) == 16, "lies in flash");

static int is_known(uint32_t type) {
    switch (type) {
    case FL_SECTION_TENSORS:
    case FL_SECTION_OPERATORS:
    case FL_SECTION_IO:
    case FL_SECTION_PLAN:
    case FL_SECTION_DATA:
    case FL_SECTION_LABELS:
    case FL_SECTION_LEARN:
    case FL_SECTION_REHEARSAL:
    case FL_SECTION_META:
    case FL_SECTION_TILES:
        return 1;
    default:
        return 0;
    }
}

static int check_header(const void *image, size_t bytes, fl_view_t *v) {
    if ((uintptr_t)image % FL_IMAGE_ALIGN != 0) {
        return FL_EALIGN;
    }
    const fl_image_header_t *h = image;
    if (!h || bytes < sizeof(*h) || h->magic != FL_IMAGE_MAGIC) {
        return FL_EBADMSG;
    }
    if (h->version_major != FL_IMAGE_VERSION_MAJOR) {
        return FL_ENOTSUP;
    }
    if (h->total_bytes < sizeof(*h) || h->total_bytes > bytes || h->total_bytes % FL_IMAGE_ALIGN != 0) {
        return FL_EBADMSG;
    }
    if (h->total_bytes > FL_MAX_BYTES) {
        return FL_ENOTSUP;
    }
    v->base = image;
    v->total = h->total_bytes;
    if (fl_crc32(0, v->base + FL_IMAGE_CRC_FROM, v->total - FL_IMAGE_CRC_FROM) != h->crc32) {
        return FL_EBADMSG;
    }
    if (h->flags != 0) {
        return FL_ENOTSUP;
    }
    v->section_count = h->section_count;
    v->tensor_count = h->tensor_count;
    v->op_count = h->op_count;
    // tensors are named by 16-bit numbers, one of which means "none"
    if (v->tensor_count == 0 || v->tensor_count > FL_NO_TENSOR || v->op_count == 0) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int check_section_table(fl_view_t *v) {
    const uint32_t room = v->total - (uint32_t)sizeof(fl_image_header_t);
    if (v->section_count > room / sizeof(fl_section_t)) {
        return FL_EBADMSG;
    }
    v->sections = (const fl_section_t *)fl_at(v, sizeof(fl_image_header_t));
    const uint32_t table_end = (uint32_t)(sizeof(fl_image_header_t) + v->section_count * sizeof(fl_section_t));
    for (uint32_t i = 0; i < v->section_count; i++) {
        const fl_section_t *s = &v->sections[i];
        if (s->offset < table_end || s->offset > v->total || s->bytes > v->total - s->offset ||
            s->offset % FL_IMAGE_ALIGN != 0) {
            return FL_EBADMSG;
        }
        if ((s->flags & FL_SECTION_REQUIRED) && !is_known(s->type)) {
            return FL_ENOTSUP;
        }
    }
    return FL_OK;
}

// The only section of a type: FL_ENOENT if there is none, FL_EBADMSG if there are two.
static int only(const fl_view_t *v, uint32_t type, const fl_section_t **found) {
    *found = NULL;
    for (uint32_t i = 0; i < v->section_count; i++) {
        if (v->sections[i].type == type) {
            if (*found) {
                return FL_EBADMSG;
            }
            *found = &v->sections[i];
        }
    }
    return *found ? FL_OK : FL_ENOENT;
}

static int find_graph(fl_view_t *v) {
    const fl_section_t *tensors;
    const fl_section_t *ops;
    const fl_section_t *io;
    const fl_section_t *data;
    if (only(v, FL_SECTION_TENSORS, &tensors) || only(v, FL_SECTION_OPERATORS, &ops) ||
        only(v, FL_SECTION_IO, &io) || only(v, FL_SECTION_DATA, &data)) {
        return FL_EBADMSG;
    }
    if (tensors->bytes != (uint64_t)v->tensor_count * sizeof(fl_tensor_t) ||
        ops->bytes != (uint64_t)v->op_count * sizeof(fl_op_t) || io->bytes < 2 * sizeof(uint16_t)) {
        return FL_EBADMSG;
    }
    if (v->op_count > FL_MAX_OPS) {
        return FL_ENOTSUP;
    }
    v->tensors = (const fl_tensor_t *)fl_at(v, tensors->offset);
    v->ops = (const fl_op_t *)fl_at(v, ops->offset);
    v->data_from = data->offset;
    v->data_end = data->offset + data->bytes;
    const uint16_t *counts = (const uint16_t *)fl_at(v, io->offset);
    v->input_count = counts[0];
    v->output_count = counts[1];
    v->io = counts + 2;
    if (io->bytes != sizeof(uint16_t) * (2 + v->input_count + v->output_count)) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int check_optional(const fl_view_t *v) {
    const fl_section_t *s;
    int err = only(v, FL_SECTION_LABELS, &s);
    if (err == FL_OK) {
        err = fl_check_labels((const uint8_t *)fl_at(v, s->offset), s->bytes);
    }
    if (err != FL_OK && err != FL_ENOENT) {
        return err;
    }
    err = only(v, FL_SECTION_LEARN, &s);
    if (err == FL_OK) {
        err = fl_check_trainables(v, (const uint8_t *)fl_at(v, s->offset), s->bytes);
    }
    if (err != FL_OK && err != FL_ENOENT) {
        return err;
    }
    err = only(v, FL_SECTION_REHEARSAL, &s);
    if (err == FL_OK) {
        err = fl_check_rehearsal(v, (const uint8_t *)fl_at(v, s->offset), s->bytes);
    }
    return err == FL_ENOENT ? FL_OK : err;
}

int fl_image_check(const void *image, size_t bytes) {
    fl_view_t v = {0};
    int err = check_header(image, bytes, &v);
    if (!err) {
        err = check_section_table(&v);
    }
    if (!err) {
        err = find_graph(&v);
    }
    if (!err) {
        err = fl_check_tensors(&v);
    }
    for (uint32_t i = 0; !err && i < v.op_count; i++) {
        err = fl_check_op(&v, &v.ops[i]);
    }
    if (!err) {
        err = fl_check_io(&v);
    }
    if (!err) {
        err = fl_check_flow(&v);
    }
    if (!err) {
        err = fl_check_plans(&v);
    }
    return err ? err : check_optional(&v);
}

int fl_image_section(const void *image, uint32_t type, uint32_t *cursor, const void **data, uint32_t *bytes) {
    const fl_image_header_t *h = image;
    const fl_section_t *sections = (const fl_section_t *)(h + 1);
    for (uint32_t i = *cursor; i < h->section_count; i++) {
        if (sections[i].type == type) {
            *cursor = i + 1;
            *data = (const uint8_t *)image + sections[i].offset;
            *bytes = sections[i].bytes;
            return FL_OK;
        }
    }
    return FL_ENOENT;
}
