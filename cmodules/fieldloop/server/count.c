// How many instructions a predict or a step takes, where the home can tell.
#include "server/server.h"

bool fl_server_count_begin(const fl_server_t *s) {
    return s->config->count_begin != NULL && s->config->count_begin(s->config->ctx);
}

void fl_server_count_end(const fl_server_t *s, bool counts, fl_cbor_w_t *w) {
    uint64_t instructions = counts ? s->config->count_end(s->config->ctx) : 0;
    fl_cbor_put_str(w, "ins");
    if (counts) {
        fl_cbor_put_int(w, (int64_t)instructions);
    } else {
        fl_cbor_put_null(w);
    }
}
