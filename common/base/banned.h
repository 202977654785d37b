/* banned.h - makes calls that overrun or swallow errors fail to compile; given to the compiler with
 * -include.
 *
 * The system's own headers come first, so that their declarations are not hit. */
#ifndef BASE_BANNED_H
#define BASE_BANNED_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#pragma GCC poison strcpy strcat sprintf vsprintf gets strtok atoi atol atoll
#endif
