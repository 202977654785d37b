/* main.c - baton-prefill: reads prompts and hands their KV to decode nodes. */
#include "prefill_node/prefill.h"

int main(int argc, char **argv)
{
    return node_main(&prefill_role, argc, argv);
}
