// simboard.Partition: a partition of the simulated flash as a MicroPython object.
#ifndef FIELDLOOP_MPS2_PARTITION_H
#define FIELDLOOP_MPS2_PARTITION_H

#include "py/obj.h"
#include "simflash.h"

extern const mp_obj_type_t partition_type;

// Raises ValueError for a name that no partition has.
mp_obj_t partition_find(const char *name);

#endif
