/* engine_int.h - inside of kvcl_engine, for session.c. */
#ifndef KVCL_ENGINE_INT_H
#define KVCL_ENGINE_INT_H

#include "forward.h"

struct kvcl_engine {
    kvcl_model *model;
    kvcl_dev *dev;
    kvcl_queue *queue; /* of its sessions too: one thread at a time */
    kvcl_weights weights;
};

#endif
