/* vex_trap.c - the SIGILL handler, and the decoding: C4, RXB and map, W vvvv L pp, opcode, ModRM, SIB, displacement. */
#include "helpers/vex_trap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static vex_execute_fn execute;
static __thread unsigned long count;

void vex_fault(const char *what)
{
    fprintf(stderr, "trapped instruction: fault, not so: %s\n", what);
    abort();
}

static int64_t register_of(const ucontext_t *u, unsigned i)
{
    static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    return u->uc_mcontext.gregs[order[i]];
}

/* p: behind ModRM.  Returns where the instruction ends. */
static const uint8_t *decode_memory(const ucontext_t *u, const uint8_t *p, unsigned modrm, unsigned x, unsigned b,
                                    struct vex_instruction *i)
{
    const unsigned mod = modrm >> 6, rm = modrm & 7;
    const bool from_rip = rm == 5 && mod == 0;
    bool has_base = !from_rip;
    unsigned base = rm;
    int64_t at = 0;
    i->sib = rm == 4;
    if (i->sib) {
        unsigned sib = *p++, index = (sib >> 3 & 7) + x;
        base = sib & 7;
        has_base = base != 5 || mod != 0;
        if (index != 4) i->index = register_of(u, index) * (1 << (sib >> 6));
    }
    if (has_base) at = register_of(u, base + b);
    if (mod == 1) {
        at += (int8_t)*p++;
    } else if (mod == 2 || !has_base) {
        int32_t disp;
        memcpy(&disp, p, sizeof(disp));
        p += sizeof(disp);
        at += disp;
        if (from_rip) at += (int64_t)p; /* relative to what follows */
    }
    i->at = (uint8_t *)at;
    return p;
}

/* Returns where the instruction ends. */
static const uint8_t *decode(const ucontext_t *u, const uint8_t *code, struct vex_instruction *i)
{
    VEX_FAULT_UNLESS(code[0] == 0xc4);
    const unsigned r = code[1] & 0x80 ? 0 : 8, x = code[1] & 0x40 ? 0 : 8, b = code[1] & 0x20 ? 0 : 8, modrm = code[4];
    *i = (struct vex_instruction){ .map = code[1] & 31,
                                   .pp = code[2] & 3,
                                   .opcode = code[3],
                                   .w = code[2] & 0x80,
                                   .l = code[2] & 4,
                                   .reg = (modrm >> 3 & 7) + r,
                                   .vvvv = ~code[2] >> 3 & 15,
                                   .rm = (modrm & 7) + b,
                                   .memory = modrm >> 6 != 3 };
    return i->memory ? decode_memory(u, code + 5, modrm, x, b, i) : code + 5;
}

/* qemu-user 7.2 starts handlers with a stack that is off by 8 bytes, where the compiler's aligned stores fault. */
__attribute__((force_align_arg_pointer)) static void on_illegal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    struct vex_instruction i;
    const uint8_t *code = (const uint8_t *)u->uc_mcontext.gregs[REG_RIP];
    const bool marked = code[0] == 0x0f && code[1] == 0x0b; /* ud2 */
    const uint8_t *end = decode(u, marked ? code + 2 : code, &i);
    VEX_FAULT_UNLESS(execute(u, &i));
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)end;
    count++;
}

void vex_trap_install(vex_execute_fn fn)
{
    struct sigaction action = { .sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO };
    execute = fn;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGILL, &action, NULL) != 0) abort();
}

unsigned long vex_trap_count(void)
{
    return count;
}
