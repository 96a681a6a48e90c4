/* cmd_devices.h - the list of devices, for `kvcl devices` and `kvcl run --list-devices`. */
#ifndef KVCL_CMD_DEVICES_H
#define KVCL_CMD_DEVICES_H

#include "cmd.h"

/* Most devices that are listed. */
#define KVCL_MAX_DEVICES 64

/* Prints the table; returns the exit code. */
int kvcl_devices_list(const kvcl_common_opts *common, const kvcl_opt_result *parsed);
/* id, name, platform, ... of one device as JSON. */
json_t *kvcl_device_json(const kvcl_device_info *d);

#endif
