/* main.c - baton-coordinator. */
#include "coordinator/program.h"

int main(int argc, char **argv)
{
    return coordinator_main(argc, argv);
}
