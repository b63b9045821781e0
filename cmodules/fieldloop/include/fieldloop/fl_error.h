// The errors of the C core: 0 or a negative value, equal to -errno of the same name.
//
// Every function of the core that can fail returns `int`: FL_OK (0) or one of these; a function that
// returns a count returns it as a positive value. Bad data (an image, a packet, a store) is always a
// returned error, never a fault. The numbers are fixed, so that they mean the same on every libc.
#ifndef FIELDLOOP_FL_ERROR_H
#define FIELDLOOP_FL_ERROR_H

typedef enum {
    FL_OK = 0,
    FL_ENOENT = -2,    // nothing there: no record, no such section
    FL_EIO = -5,       // the flash or the port failed
    FL_EAGAIN = -11,   // not yet: more bytes are needed
    FL_ENOMEM = -12,   // the memory handed over is too small
    FL_EBUSY = -16,    // another session, or a job, holds it
    FL_EINVAL = -22,   // an argument is out of its range
    FL_ENOSPC = -28,   // the store or the slot is full
    FL_EDOM = -33,     // a value that is not a finite number
    FL_ENOTSUP = -95,  // well-formed, but this build cannot do it (version, operator, dtype)
    FL_EBADMSG = -74,  // damaged or foreign bytes: bad magic, CRC, bounds
    FL_EALIGN = -1001, // an image that does not start at a 16-byte boundary
} fl_error_t;

#endif
