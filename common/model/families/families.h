/* families.h - the families that there are, one file each. */
#ifndef MODEL_FAMILIES_FAMILIES_H
#define MODEL_FAMILIES_FAMILIES_H
#include "model/family.h"

extern const struct family family_llama, family_qwen2, family_qwen3, family_gemma2, family_gemma3, family_phi3;
#endif
