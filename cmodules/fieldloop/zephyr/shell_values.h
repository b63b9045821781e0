// Words of a command line as values. Zephyr's smallest libc reads no floats, so this does.
#ifndef FIELDLOOP_ZEPHYR_SHELL_VALUES_H
#define FIELDLOOP_ZEPHYR_SHELL_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include "fieldloop/fl_cbor.h"

// A number of decimal digits and nothing else, up to 2^32 - 1.
bool fl_shell_number(const char *word, uint32_t *value);

// A setting's value as the link would carry it: 12, -3 (int), 0.5, 1e-3 (f32), true, false, several of them with
// commas (an array), anything else text. False: it does not fit.
bool fl_shell_value(const char *word, fl_cbor_w_t *w);

#endif
