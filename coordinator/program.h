/* program.h - the whole life of a coordinator's process. */
#ifndef COORDINATOR_PROGRAM_H
#define COORDINATOR_PROGRAM_H

/* Reads the configuration, serves until SIGTERM, SIGINT or SIGQUIT (a second one ends a drain); returns the exit code:
 * 0 ok, 1 it could not start, 2 its configuration is wrong. */
int coordinator_main(int argc, char **argv);
#endif
