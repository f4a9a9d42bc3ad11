/* Slots of the machine: which block device a slot is, and its mount. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SLOTS 64
#define DEVICE_NAME 32
#define DISKS_DIRECTORY "/run/hyper/disks"

/* `slot` in a set of them; nothing for one that there is none of, such as NO_SLOT. */
static inline uint64_t slot_bit(uint8_t slot)
{
	return slot < SLOTS ? UINT64_C(1) << slot : 0;
}

/*
 * Mount the disk of `slot` below DISKS_DIRECTORY, once; squashfs, erofs and ext4 are told apart by
 * their superblocks.  Called by a helper process: journals take their time.
 */
int disk_mount(uint8_t slot);
int disk_unmount(uint8_t slot); /* one that is not mounted is no failure */
void disk_let_go(uint8_t slot); /* for us it is unmounted; it is when nobody has it any more */
void disks_forget(uint64_t slots); /* hyperd takes these away, and a controller would not tell */
void disk_path(uint8_t slot, char path[32]);
bool disk_is_mounted(uint8_t slot);
/* The names that the kernel has for them in /dev; "" for a slot without a disk, or none that was looked at. */
void disks_find(char names[SLOTS][DEVICE_NAME]);
/* Nodes of every slot's device in the directory `dev`: containers have access to all disks. */
int disk_make_nodes(int dev);
