// The application: the module's threads do the work; this says on the console what they found.
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "fieldloop_zephyr.h"

static int tell(fl_server_t *s, void *arg) {
    ARG_UNUSED(arg);
    if (s->fault[0] != '\0') {
        printk("fieldloop: %s\n", s->fault);
    } else if (!s->has_model) {
        printk("fieldloop: no model is active; push one and activate it\n");
    } else {
        printk("fieldloop: model of %u bytes in %s, %s\n", s->image_bytes, s->config->slots[s->active].name,
            s->has_learner ? "a learner is open" : "no learner is open");
    }
    return FL_OK;
}

int main(void) {
    if (fl_zephyr_call(tell, NULL) != FL_OK) {
        printk("fieldloop: the server did not start; the log says why\n");
    }
    return 0;
}
