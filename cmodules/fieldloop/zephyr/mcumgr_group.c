// The commands as groups of Zephyr's SMP server, whatever transport a request came over.
//
// MCUmgr takes the header off and would write head and end of the reply's map itself. Our replies are whole messages
// with a check over their pairs, so the groups are registered with a payload of their own: the handler steps back to
// the header and hands the whole message to the server's thread.
#include <zephyr/init.h>
#include <zephyr/mgmt/mcumgr/mgmt/handlers.h>
#include <zephyr/mgmt/mcumgr/mgmt/mgmt.h>
#include <zephyr/mgmt/mcumgr/smp/smp.h>
#include <zephyr/net_buf.h>
#include <zephyr/sys/byteorder.h>

#include "fieldloop_zephyr.h"

// What is above is answered by MCUmgr: no such command. `docs/SPEC-link.md` has the numbers.
#define COMMANDS 16
#define FILE_COMMANDS 5

typedef struct {
    const uint8_t *msg;
    size_t len;
    uint8_t *reply;
    size_t cap;
} exchange_t;

static int exchange(fl_server_t *s, void *arg) {
    exchange_t *e = arg;
    return fl_server_answer(s, e->msg, e->len, e->reply, e->cap);
}

static int answer(struct smp_streamer *streamer) {
    struct net_buf *request = streamer->reader->nb;
    struct net_buf *reply = streamer->writer->nb;
    const uint8_t *msg = request->data - FL_SMP_HEADER;
    exchange_t e = {
        .msg = msg,
        // A packet may carry several requests; MCUmgr saw that this one is whole.
        .len = FL_SMP_HEADER + sys_get_be16(msg + 2),
        .reply = reply->data,
        .cap = reply->size - net_buf_headroom(reply),
    };
    int n = fl_zephyr_call(exchange, &e);
    if (n < 0) {
        return MGMT_ERR_EUNKNOWN;
    }
    if (n == 0) { // op and length are MCUmgr's: it is of SMP's first version
        return MGMT_ERR_UNSUPPORTED_TOO_OLD;
    }
    reply->len = (uint16_t)n; // MCUmgr writes the header once more: the same but for what it leaves out
    return MGMT_ERR_EOK;
}

static const struct mgmt_handler handlers[COMMANDS] = {
    [0 ... COMMANDS - 1] = {.mh_read = answer, .mh_write = answer},
};

static struct mgmt_group commands = {
    .mg_handlers = handlers,
    .mg_handlers_count = COMMANDS,
    .mg_group_id = CONFIG_FIELDLOOP_GROUP,
    .custom_payload = true,
};

#if !defined(CONFIG_MCUMGR_GRP_FS)
static struct mgmt_group files = {
    .mg_handlers = handlers,
    .mg_handlers_count = FILE_COMMANDS,
    .mg_group_id = FL_SERVER_GROUP_FILES,
    .custom_payload = true,
};
#endif

static void register_groups(void) {
    mgmt_register_group(&commands);
#if !defined(CONFIG_MCUMGR_GRP_FS)
    mgmt_register_group(&files);
#endif
}

MCUMGR_HANDLER_DEFINE(fieldloop, register_groups);
