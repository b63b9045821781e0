// The .flm model image: the bytes of a model, executed in place. docs/SPEC-model.md is the full story.
//
//   0 +------------------+  fl_image_header_t, 64 bytes
//  64 +------------------+  fl_section_t[section_count]
//     +------------------+  sections, each at a 16-byte boundary, addressed from the image's start
//     |  TENS OPER INOU PLAN DATA  (required)   LABL LERN REHS META ... (optional)
//     +------------------+  total_bytes, a multiple of 16
//
// Little-endian. Nothing in it is a pointer. fl_image_check() (called once, by fl_model_open) proves every
// offset, count, shape and quantisation parameter, so that the executor may trust what it reads afterwards.
// Constants are enumerators, not macros: the host's cffi declarations are generated from this file.
#ifndef FIELDLOOP_FL_IMAGE_H
#define FIELDLOOP_FL_IMAGE_H

#include <stddef.h>
#include <stdint.h>

enum {
    FL_IMAGE_MAGIC = 0x314d4c46,  // "FLM1"
    FL_IMAGE_VERSION_MAJOR = 1,   // a reader refuses another major version
    FL_IMAGE_VERSION_MINOR = 2,   // and accepts any minor one
    FL_IMAGE_ALIGN = 16,          // of the image's start and of every section
    FL_IMAGE_UID_BYTES = 16,
    FL_IMAGE_CRC_FROM = 16,       // header.crc32 covers bytes [16, total_bytes)
    FL_IMAGE_UID_FROM = 32,       // header.uid is the start of the SHA-256 of bytes [32, total_bytes)
};

// Section types, four ASCII characters each, little-endian.
enum {
    FL_SECTION_TENSORS = 0x534e4554,    // "TENS": fl_tensor_t[]
    FL_SECTION_OPERATORS = 0x5245504f,  // "OPER": fl_op_t[], in execution order
    FL_SECTION_IO = 0x554f4e49,         // "INOU": u16 input_count, u16 output_count, u16 tensor[...]
    FL_SECTION_PLAN = 0x4e414c50,       // "PLAN": fl_plan_t, then u32 arena_offset[tensor_count]; one per plan kind
    FL_SECTION_DATA = 0x41544144,       // "DATA": constants; tensors and operators point into it
    FL_SECTION_LABELS = 0x4c42414c,     // "LABL": u32 count, then count NUL-terminated UTF-8 strings
    FL_SECTION_LEARN = 0x4e52454c,      // "LERN": fl_trainable_t[], in execution order
    FL_SECTION_REHEARSAL = 0x53484552,  // "REHS": fl_rehearsal_set_t, labels, samples
    FL_SECTION_META = 0x4154454d,       // "META": UTF-8 JSON for people and tools, never read by the core
    // since 1.2
    FL_SECTION_TILES = 0x454c4954,      // "TILE": fl_tiles_t, then fl_plan_step_t[count]; at most one per plan kind
};

enum {
    FL_SECTION_REQUIRED = 1,  // fl_section_t.flags: a reader that does not know the type must refuse the image
};

typedef enum { FL_I8 = 0, FL_I32 = 1, FL_F32 = 2, FL_U8 = 3 } fl_dtype_t;
typedef enum { FL_ACTIVATION = 0, FL_CONSTANT = 1 } fl_tensor_kind_t;
typedef enum { FL_PLAN_INFER = 0, FL_PLAN_LEARN = 1 } fl_plan_kind_t;

typedef enum {
    FL_OP_CONV2D = 1,            // in: x NHWC, w OHWI, b;  p: conv
    FL_OP_DEPTHWISE_CONV2D = 2,  // in: x NHWC, w 1HWC, b;  p: conv
    FL_OP_FULLY_CONNECTED = 3,   // in: x [n, c_in] (any shape, flattened), w [c_out, c_in], b
    FL_OP_MAX_POOL = 4,          // in: x NHWC;  p: conv (kernel, stride, padding)
    FL_OP_AVG_POOL = 5,          // in: x NHWC;  p: conv; padding does not count towards the divisor
    FL_OP_ADD = 6,               // in: a, b, broadcast against each other;  p: add (int8)
    FL_OP_SOFTMAX = 7,           // in: x [n, c], over the last axis;  p: softmax; output scale 1/256, zero point -128
    FL_OP_RESHAPE = 8,           // in: x; the same bytes under another shape (the plan may give both one place)
    // since 1.1
    FL_OP_SUB = 9,          // in: a, b, broadcast;  p: add (int8)
    FL_OP_MUL = 10,         // in: a, b, broadcast;  p: mul (int8)
    FL_OP_MINIMUM = 11,     // in: a, b, broadcast, one quantisation
    FL_OP_MAXIMUM = 12,     // in: a, b, broadcast, one quantisation
    FL_OP_CONCAT = 13,      // in: the first four;  p: concat; a copy: all of one dtype and quantisation
    FL_OP_PAD = 14,         // in: x;  p: pad; one quantisation
    FL_OP_TRANSPOSE = 15,   // in: x;  p: transpose; one quantisation
    FL_OP_SLICE = 16,       // in: x;  p: slice; one quantisation
    FL_OP_MEAN = 17,        // in: x;  p: mean; over the axes of a mask
    FL_OP_TABLE = 18,       // in: x int8, int8 table[256] (constant); out = table[x + 128]: any function of one int8
    FL_OP_EMBEDDING = 19,   // in: index int32 or int8, table [entries, ...] (constant); an index outside is clamped
    FL_OP_QUANTIZE = 20,    // in: x f32; out int8
    FL_OP_DEQUANTIZE = 21,  // in: x int8; out f32
    FL_OP_UNARY = 22,       // in: x f32;  p: unary; out f32
} fl_opcode_t;

// Every operator from CONV2D to SOFTMAX, and MEAN, also runs in f32: all its tensors are f32, it has no factors, and
// act_min, act_max hold the bits of two f32 (-inf and +inf where nothing is clamped).

enum {
    // fl_op_t.flags of CONV2D, DEPTHWISE_CONV2D, FULLY_CONNECTED: scale the accumulator with one rounding,
    // (acc * multiplier + 2^(30 - shift)) >> (31 - shift), as LiteRT does where TFLite Micro rounds twice.
    FL_OP_SINGLE_ROUNDING = 1,
};

typedef enum {
    FL_UNARY_RELU = 0,      // max(x, 0)
    FL_UNARY_CLIP = 1,      // min(max(x, a), b)
    FL_UNARY_LEAKY_RELU = 2,  // x < 0 ? a * x : x
    FL_UNARY_SIGMOID = 3,
    FL_UNARY_TANH = 4,
    FL_UNARY_HARDSWISH = 5,  // x * min(max(x + 3, 0), 6) / 6
    FL_UNARY_HARDSIGMOID = 6,  // min(max(x * a + b, 0), 1)
    FL_UNARY_ELU = 7,       // x < 0 ? a * (exp(x) - 1) : x
    FL_UNARY_ABS = 8,
    FL_UNARY_EXP = 9,
} fl_unary_kind_t;

enum { FL_NO_TENSOR = 0xffff };

typedef struct {
    uint32_t magic;
    uint16_t version_major;
    uint16_t version_minor;
    uint32_t total_bytes;
    uint32_t crc32;
    uint8_t uid[16];  // names the model; learned state is bound to it
    uint32_t section_count;
    uint32_t tensor_count;
    uint32_t op_count;
    uint32_t flags;        // 0
    uint32_t reserved[4];  // 0
} fl_image_header_t;       // 64 bytes

typedef struct {
    uint32_t type;
    uint32_t flags;
    uint32_t offset;  // from the image's start, a multiple of 16
    uint32_t bytes;
} fl_section_t;  // 16 bytes

// Real value of an int8 element: scale * (q - zero_point); of a per-channel constant: channel_scale[c] * q.
typedef struct {
    uint8_t dtype;  // fl_dtype_t
    uint8_t kind;   // fl_tensor_kind_t
    uint8_t ndim;   // 1..4
    uint8_t reserved;
    int32_t shape[4];         // row-major, the first ndim used, the others 1
    uint32_t bytes;           // product(shape) * element size
    uint32_t offset;          // a constant's place, from the image's start; 0 for an activation (the plan has it)
    float scale;              // > 0; 0 where channel_scales is used
    int32_t zero_point;       // int8: -128..127, weights included where they have one scale; others: 0
    uint32_t channel_scales;  // image offset of f32[channel_count], 0 = none
    uint32_t channel_count;   // size of the channel axis of a per-channel constant (0: O of OHWI; 3: C of 1HWC)
} fl_tensor_t;                // 44 bytes

// Fixed-point factor: multiplier / 2^31 * 2^shift, multiplier in [2^30, 2^31) or 0, shift in -31..30.
typedef struct {
    int32_t multiplier;
    int32_t shift;  // > 0: left
} fl_requant_t;     // 8 bytes

typedef struct {
    uint16_t kernel_h, kernel_w;  // of the weights, or of the pooling window
    uint16_t stride_h, stride_w;
    uint16_t dilation_h, dilation_w;  // 1 for pools
    int16_t pad_top, pad_left;        // the rest of the padding follows from the output's shape
    uint16_t depth_multiplier;        // depthwise: c_out / c_in; else 1
    uint16_t groups;                  // conv2d: 0 and 1 mean one; w has in_c / groups channels
    uint16_t reserved[14];
} fl_conv_params_t;  // 48 bytes

typedef struct {
    fl_requant_t a, b, out;  // real factors: s_a / (2 s_max), s_b / (2 s_max), 2 s_max / (2^20 s_out)
    int32_t left_shift;      // 20
    int32_t reserved[5];
} fl_add_params_t;  // 48 bytes

typedef struct {
    int32_t input_multiplier;  // of s_in * 2^26 (5 integer bits, beta 1), as fl_requant_t
    int32_t input_left_shift;
    int32_t diff_min;  // smallest (x - max) that still contributes
    int32_t reserved[9];
} fl_softmax_params_t;  // 48 bytes

typedef struct {
    fl_requant_t out;  // s_a * s_b / s_out
    int32_t reserved[10];
} fl_mul_params_t;  // 48 bytes

enum { FL_CONCAT_MAX = 24 };

typedef struct {
    uint16_t axis;
    uint16_t count;     // inputs, 1..FL_CONCAT_MAX
    uint16_t more[20];  // tensors of the fifth input and those after it; FL_NO_TENSOR = absent
    uint16_t reserved[2];
} fl_concat_params_t;  // 48 bytes

typedef struct {
    uint16_t before[4], after[4];  // elements along each axis of x
    int32_t value;                 // an int8, or the bits of an f32
    int32_t reserved[7];
} fl_pad_params_t;  // 48 bytes

typedef struct {
    uint8_t axis[4];  // out axis i is x axis axis[i]
    int32_t reserved[11];
} fl_transpose_params_t;  // 48 bytes

typedef struct {
    int32_t begin[4];   // of each axis of x
    int32_t stride[4];  // 1 or more; how many follows from the output's shape
    int32_t reserved[4];
} fl_slice_params_t;  // 48 bytes

typedef struct {
    uint32_t axes;     // bit i: averaged over axis i of x
    fl_requant_t out;  // int8: s_x / (s_out * count); 0 in f32
    int32_t reserved[9];
} fl_mean_params_t;  // 48 bytes

typedef struct {
    uint32_t kind;  // fl_unary_kind_t
    float a, b;     // of the kinds that name them
    int32_t reserved[9];
} fl_unary_params_t;  // 48 bytes

typedef struct {
    uint16_t opcode;  // fl_opcode_t
    uint16_t flags;   // FL_OP_SINGLE_ROUNDING or 0
    uint16_t in[4];   // tensor indices; FL_NO_TENSOR = absent. [0] input, [1] second input or weights, [2] bias,
                      // [3] int8: the folded bias, int32[out_c] = b - x_zero * sum of w, for kernels that do not centre x
    uint16_t out[2];
    uint32_t requant;           // image offset of fl_requant_t[requant_count]; 0 where the operator has none
    uint32_t requant_count;     // 1 (per tensor) or the number of output channels
    int32_t act_min, act_max;   // the activation, folded: clamp of the output
    union {
        fl_conv_params_t conv;
        fl_add_params_t add;
        fl_softmax_params_t softmax;
        fl_mul_params_t mul;
        fl_concat_params_t concat;
        fl_pad_params_t pad;
        fl_transpose_params_t transpose;
        fl_slice_params_t slice;
        fl_mean_params_t mean;
        fl_unary_params_t unary;
    } p;
} fl_op_t;  // 80 bytes

typedef struct {
    uint32_t kind;         // fl_plan_kind_t
    uint32_t arena_bytes;  // highest end of any activation, tile, accumulator, or of the learner's scratch
    // since 1.2, FL_PLAN_LEARN only: a part of the arena that nothing lives in once the forward pass is over; 0 bytes: none
    uint32_t learner_scratch, learner_scratch_bytes;
    // u32 arena_offset[tensor_count] follows; 0xffffffff for constants, and for activations that tiles never hold whole
} fl_plan_t;  // 16 bytes

// ---- tiles (since 1.2)
//
// A plan without a TILE section of its kind runs the operators one after the other, each whole. With one, the arena is
// filled by its steps instead, in their order; the operators stay what they are, a step says which part of which operator
// is computed, from where to where. What one step wrote is what a later one reads only because the host's planner
// arranged it so (and its verifier proved it): fl_image_check proves that no step leaves the arena, the image or its tensors.
//
// Maps. A step sees every activation as rows of pixels of channels, row-major:
//   [1, h, w, c] as (h, w, c);  [a, b, c] as (b, 1, c) where a is 1, else as (a, b, c);  [a, b] as (a, 1, b);  [a] as (1, 1, a).
// With FL_STEP_TURNED, [1, 1, w, c] as (w, 1, c), and the operator's window with height and width exchanged.
// A piece of a map in the arena: pixels in the order of the map, full rows, `step` elements from one pixel to the next.

enum { FL_NO_PLACE = 0xffffffff };

typedef struct {
    uint32_t kind;   // fl_plan_kind_t
    uint32_t count;  // steps
    uint32_t reserved[2];
    // fl_plan_step_t[count] follows
} fl_tiles_t;  // 16 bytes

typedef enum {
    FL_STEP_OP = 0,    // the whole operator `op`, between the places that the plan has for its tensors
    FL_STEP_TILE = 1,  // a box of its output
    FL_STEP_COPY = 2,  // z bytes from x to y, which may overlap; `op`: the operator that will read them
    FL_STEP_LOOP = 3,  // the `op` steps that follow, `rows` times; not nested
} fl_plan_step_kind_t;

enum {
    FL_STEP_PARTIAL = 1,  // sums into accumulators at y: int32, or f32 of an f32 operator
    FL_STEP_FIRST = 2,    // which start from 0
    FL_STEP_LAST = 4,     // and then get their bias and become finished elements at z
    FL_STEP_TURNED = 8,
};

// A tile computes rows [row, row + rows) by all columns by channels [channel, channel + channels) of the output's map from
// rows [x_row, x_row + x_rows) and channels [x_channel, x_channel + x_channels) of the input's. Rows and columns of the
// input outside of its map are padding; every row that the box needs and that lies on the map lies in the piece.
//
// Which operators, and what they read:
//   conv2d (one group)     all channels of x; PARTIAL: some, the others in other steps
//   depthwise_conv2d       x channels = channels / depth_multiplier, aligned to it; of one channel in all: that one
//   fully_connected        rows of x: samples; all channels. PARTIAL: one sample, whose input is seen as the map
//                          (map_h, map_w, w's columns / map_h / map_w): any rows and channels of it. Else map_h = map_w = 1
//   max_pool, avg_pool     the channels of the box. PARTIAL (avg_pool only): output of one row and column, all taps on the map
//   mean                   PARTIAL only, over all axes but the last of a map whose other axes are averaged
//   add, sub, mul, minimum, maximum   x and z: the box of both inputs, which are activations of the output's shape
//   table, quantize, dequantize, unary   x: the box
//   embedding              rows [x_row, x_row + x_rows) of the index's map (n, 1, 1) are rows of the box; channels of the entries
// Elements finished at z may lie on the accumulators they come from (z = y, z_step not above an accumulator's pixel). A box
// of add to maximum, table, unary may be written where x or z lies (y = x, one step); everything else that a step writes
// overlaps nothing it reads.
typedef struct {
    uint8_t kind;   // fl_plan_step_kind_t
    uint8_t flags;  // FL_STEP_*
    uint16_t op;
    uint16_t row, rows, channel, channels;
    uint16_t x_row, x_rows, x_channel, x_channels;
    uint16_t x_step, y_step, z_step;  // elements
    uint16_t map_h, map_w;
    int16_t row_more;  // ..._more: added before each further iteration of the loop around
    uint32_t x, y, z;  // arena offsets (bytes) of the first element: of the input, output or accumulators, and third
    int16_t channel_more, x_row_more, x_channel_more;
    uint16_t reserved;
    int32_t x_more, y_more, z_more;
} fl_plan_step_t;  // 64 bytes

// A layer that may be trained. In the FL_PLAN_LEARN plan, what lies between the first of them and the logits
// keeps its place until the end of the run, because the backward pass reads it.
typedef struct {
    uint16_t op;      // index into OPER
    uint16_t flags;   // 0
    float lr_scale;   // raw learning rate of this layer = lr * lr_scale (head: 1 / mean ||x||^2)
    uint32_t reserved[2];
} fl_trainable_t;  // 16 bytes

// Old samples that are replayed while new ones are learned; they stay in flash.
typedef struct {
    uint32_t count;         // samples
    uint32_t sample_bytes;  // = bytes of the model's input
    uint32_t reserved[2];
    // u8 label[count], zero padding to a multiple of 16, then int8 sample[count][sample_bytes]
} fl_rehearsal_set_t;  // 16 bytes

// Checks all of an image of `bytes` available bytes at `image`. Returns FL_OK, FL_EALIGN (not at a 16-byte
// boundary), FL_EBADMSG (damaged, truncated or foreign), or FL_ENOTSUP (newer major version, unknown required section,
// operator or dtype). Reads nothing outside [image, image + bytes).
int fl_image_check(const void *image, size_t bytes);

// First section of `type` at or after table position *cursor (start with 0; advanced past the hit), or FL_ENOENT.
// `image` must have been checked.
int fl_image_section(const void *image, uint32_t type, uint32_t *cursor, const void **data, uint32_t *bytes);

#endif
