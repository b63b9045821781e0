#include "shell_values.h"

#include <string.h>

bool fl_shell_number(const char *word, uint32_t *value) {
    uint64_t v = 0;
    if (*word == '\0') {
        return false;
    }
    for (; *word != '\0'; word++) {
        if (*word < '0' || *word > '9' || (v = 10 * v + (uint64_t)(*word - '0')) > UINT32_MAX) {
            return false;
        }
    }
    *value = (uint32_t)v;
    return true;
}

// The digits at *at, up to `end`; false without any, or where they are too many for the result.
static bool read_digits(const char **at, const char *end, double *value, int *count) {
    const char *begin = *at;
    while (*at < end && **at >= '0' && **at <= '9') {
        *value = 10.0 * *value + (double)(*(*at)++ - '0');
    }
    *count = (int)(*at - begin);
    return *count > 0 && *count < 16;
}

// [-]digits[.digits][e[-]digits]; *whole: neither point nor exponent.
static bool read_real(const char *at, const char *end, double *value, bool *whole) {
    bool negative = at < end && *at == '-';
    int digits, after = 0, exponent = 0;
    double power = 0.0;
    at += negative;
    *value = 0.0;
    *whole = true;
    if (!read_digits(&at, end, value, &digits)) {
        return false;
    }
    if (at < end && *at == '.') {
        at++;
        *whole = false;
        if (!read_digits(&at, end, value, &after)) {
            return false;
        }
    }
    if (at < end && *at == 'e') {
        at++;
        bool down = at < end && *at == '-';
        at += down;
        *whole = false;
        if (!read_digits(&at, end, &power, &digits) || power > 40.0) {
            return false;
        }
        exponent = down ? -(int)power : (int)power;
    }
    // one power of ten, exact up to 10^22, so that 0.1 is the float that the host sends
    double scale = 1.0;
    int shift = exponent - after;
    for (int i = 0; i < (shift < 0 ? -shift : shift); i++) {
        scale *= 10.0;
    }
    *value = shift < 0 ? *value / scale : *value * scale;
    *value = negative ? -*value : *value;
    return at == end;
}

static void put_one(const char *word, size_t n, fl_cbor_w_t *w) {
    double value;
    bool whole;
    if (read_real(word, word + n, &value, &whole)) {
        if (whole) {
            fl_cbor_put_int(w, (int64_t)value);
        } else {
            fl_cbor_put_f32(w, (float)value);
        }
    } else if ((n == 4 && memcmp(word, "true", 4) == 0) || (n == 5 && memcmp(word, "false", 5) == 0)) {
        fl_cbor_put_bool(w, n == 4);
    } else {
        fl_cbor_put_text(w, word, n);
    }
}

bool fl_shell_value(const char *word, fl_cbor_w_t *w) {
    size_t count = 1;
    for (const char *at = word; *at != '\0'; at++) {
        count += *at == ',';
    }
    if (count > 1) {
        fl_cbor_put_array(w, count);
    }
    for (const char *at = word;; at++) {
        size_t n = strcspn(at, ",");
        put_one(at, n, w);
        at += n;
        if (*at == '\0') {
            break;
        }
    }
    return !w->overflow;
}
