/* cli.h - the operator's commands: each is a row in commands.c's table and a function here.
 *
 * argv[0] is the command's name.  Exit codes: 0 ok, 1 failed, 2 usage or config. */
#ifndef CLI_CLI_H
#define CLI_CLI_H
#include "config/command.h"

/* A row of several commands' tables. */
#define CLI_URL(at) COMMAND_TEXT("url", "u", at, "URL", "http://127.0.0.1:8080", "the coordinator")

/* `baton` with all its arguments: finds the command and runs it. */
int cli_main(int argc, char **argv);

int cmd_serve(int argc, char **argv);
int cmd_up(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
#endif
