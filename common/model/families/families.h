/* families.h - the families that there are, one file each. */
#ifndef MODEL_FAMILIES_FAMILIES_H
#define MODEL_FAMILIES_FAMILIES_H
#include "model/family.h"

extern const struct family family_llama, family_qwen2, family_qwen3, family_qwen3moe, family_gemma2, family_gemma3,
    family_phi3, family_gpt_oss, family_deepseek2, family_qwen3next, family_qwen35, family_qwen35moe, family_mamba2;
#endif
