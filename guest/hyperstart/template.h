/* What is the same in all containers of a pod, made once: /proc and /sys with their restrictions, /dev/mqueue. */
#pragma once

#define TEMPLATE_DIRECTORY "/run/hyper/template"

/*
 * Called by each container's job in hyperstart's mount namespace; the first of a pod builds it.  A mount
 * namespace that is made after has copies of its mounts, which are moved to where they are to be seen.
 */
int template_build(void);
void template_remove(void); /* with the pod, whose namespaces it shows */
