/* dot_formats.h - the packed formats of dot_kernels.h: a FORMAT each, and which type uses which. */
FORMAT(q4_0, 4, PACK_D, KIND_D, 3)
FORMAT(q4_1, 4, PACK_DM, KIND_DM, 0)
FORMAT(q5_0, 5, PACK_D, KIND_D, 4)
FORMAT(q5_1, 5, PACK_DM, KIND_DM, 0)
FORMAT(q8_0, 8, PACK_D, KIND_D8, 7)
FORMAT(q2_k, 2, PACK_K16M, KIND_K16M, 0)
FORMAT(q3_k, 3, PACK_K16, KIND_K16, 2)
FORMAT(q4_k, 4, PACK_K, KIND_DM, 0)
FORMAT(q5_k, 5, PACK_K, KIND_DM, 0)
FORMAT(q6_k, 6, PACK_K16, KIND_K16, 5)
FORMAT(iq1_s, BOOKED(3, BOOK_IQ1), PACK_K32, KIND_D, 4)
FORMAT(iq1_m, BOOKED(3, BOOK_IQ1), PACK_K16, KIND_K16, 4)
FORMAT(iq2_xxs, BOOKED(3, BOOK_IQ2), PACK_K32, KIND_D8, 7)
FORMAT(iq2_s, BOOKED(3, BOOK_IQ2), PACK_K16, KIND_K16D8, 7)
FORMAT(iq3_xxs, BOOKED(4, BOOK_IQ3_XXS), PACK_K32, KIND_D8, 7)
FORMAT(iq3_s, BOOKED(4, BOOK_IQ3_S), PACK_K32, KIND_D, 4)
FORMAT(iq4_nl, BOOKED(4, BOOK_IQ4), PACK_D, KIND_D8, 7)
FORMAT(iq4_xs, BOOKED(4, BOOK_IQ4), PACK_K32, KIND_D8, 7)
FORMAT(tq, 2, PACK_D, KIND_D, 0)
FORMAT(mxfp4, BOOKED(4, BOOK_FP4), PACK_BF, KIND_D, 4)

static const struct format_kernels *const format_kernels[] = {
    [DTYPE_Q4_0] = &format_q4_0,       [DTYPE_Q4_1] = &format_q4_1,    [DTYPE_Q5_0] = &format_q5_0,
    [DTYPE_Q5_1] = &format_q5_1,       [DTYPE_Q8_0] = &format_q8_0,    [DTYPE_Q2_K] = &format_q2_k,
    [DTYPE_Q3_K] = &format_q3_k,       [DTYPE_Q4_K] = &format_q4_k,    [DTYPE_Q5_K] = &format_q5_k,
    [DTYPE_Q6_K] = &format_q6_k,       [DTYPE_IQ1_S] = &format_iq1_s,  [DTYPE_IQ1_M] = &format_iq1_m,
    [DTYPE_IQ2_XXS] = &format_iq2_xxs, [DTYPE_IQ2_XS] = &format_iq2_s, [DTYPE_IQ2_S] = &format_iq2_s,
    [DTYPE_IQ3_XXS] = &format_iq3_xxs, [DTYPE_IQ3_S] = &format_iq3_s,  [DTYPE_IQ4_NL] = &format_iq4_nl,
    [DTYPE_IQ4_XS] = &format_iq4_xs,   [DTYPE_TQ1_0] = &format_tq,     [DTYPE_TQ2_0] = &format_tq,
    [DTYPE_MXFP4] = &format_mxfp4,
};
