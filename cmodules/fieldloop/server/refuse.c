// Why a call fails: the text that the host, or a person at the shell, is told.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/server.h"

int fl_server_refuse(fl_server_t *s, int error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(s->text, sizeof(s->text), format, args);
    va_end(args);
    s->lack.need = s->lack.have = 0;
    return error;
}

int fl_server_lacks(fl_server_t *s, int error, uint32_t need, uint32_t have, const char *what) {
    (void)fl_server_refuse(s, error, "%s: needs %u bytes, %u available", what, (unsigned)need, (unsigned)have);
    s->lack.need = need;
    s->lack.have = have;
    return error;
}

fl_reason_t fl_server_reason(const fl_server_t *s) {
    fl_reason_t reason = {.need = s->lack.need, .have = s->lack.have};
    memcpy(reason.text, s->text, sizeof(reason.text));
    return reason;
}

void fl_server_tell(fl_server_t *s, const fl_reason_t *reason) {
    memcpy(s->text, reason->text, sizeof(s->text));
    s->lack.need = reason->need;
    s->lack.have = reason->have;
}
