/* main.c - baton-decode: takes KV in and writes answers. */
#include "decode_node/decode.h"

int main(int argc, char **argv)
{
    return node_main(&decode_role, argc, argv);
}
