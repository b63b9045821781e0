// A learner's settings, between Python and the core.
#ifndef FIELDLOOP_MOD_LEARNER_H
#define FIELDLOOP_MOD_LEARNER_H

#include "mod_common.h"

// Sets one setting by its name; TypeError and ValueError name it, what was expected and what came. Whether all of them
// together make sense is fl_learner_complaint's to say.
void fl_mp_learner_set(fl_learner_config_t *config, qstr name, mp_obj_t value);

// All settings of a learner that is open, as a dict.
mp_obj_t fl_mp_learner_config(const fl_learner_config_t *config);

qstr fl_mp_learner_selector(const fl_learner_config_t *config);

#endif
