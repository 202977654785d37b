/* dot_formats_tmpl.h - the packed formats of dot_tmpl.h: a DOT_FORMAT each, and which type uses which. */
#ifndef COMPUTE_CPU_DOT_FORMATS_TMPL_H
#define COMPUTE_CPU_DOT_FORMATS_TMPL_H
DOT_FORMAT(q4_0, 4, PACK_D, DOT_D, 3)
DOT_FORMAT(q4_1, 4, PACK_DM, DOT_DM, 0)
DOT_FORMAT(q5_0, 5, PACK_D, DOT_D, 4)
DOT_FORMAT(q5_1, 5, PACK_DM, DOT_DM, 0)
DOT_FORMAT(q8_0, 8, PACK_D, DOT_D8, 7)
DOT_FORMAT(q2_k, 2, PACK_K16M, DOT_K16M, 0)
DOT_FORMAT(q3_k, 3, PACK_K16, DOT_K16, 2)
DOT_FORMAT(q4_k, 4, PACK_K, DOT_DM, 0)
DOT_FORMAT(q5_k, 5, PACK_K, DOT_DM, 0)
DOT_FORMAT(q6_k, 6, PACK_K16, DOT_K16, 5)
DOT_FORMAT(iq1_s, DOT_BOOKED(3, BOOK_IQ1), PACK_K32, DOT_D, 4)
DOT_FORMAT(iq1_m, DOT_BOOKED(3, BOOK_IQ1), PACK_K16, DOT_K16, 4)
DOT_FORMAT(iq2_xxs, DOT_BOOKED(3, BOOK_IQ2), PACK_K32, DOT_D8, 7)
DOT_FORMAT(iq2_s, DOT_BOOKED(3, BOOK_IQ2), PACK_K16, DOT_K16D8, 7)
DOT_FORMAT(iq3_xxs, DOT_BOOKED(4, BOOK_IQ3_XXS), PACK_K32, DOT_D8, 7)
DOT_FORMAT(iq3_s, DOT_BOOKED(4, BOOK_IQ3_S), PACK_K32, DOT_D, 4)
DOT_FORMAT(iq4_nl, DOT_BOOKED(4, BOOK_IQ4), PACK_D, DOT_D8, 7)
DOT_FORMAT(iq4_xs, DOT_BOOKED(4, BOOK_IQ4), PACK_K32, DOT_D8, 7)
DOT_FORMAT(tq, 2, PACK_D, DOT_D, 0)
DOT_FORMAT(mxfp4, DOT_BOOKED(4, BOOK_FP4), PACK_BF, DOT_D, 4)

static const struct dot_format *const dot_formats[] = {
    [DTYPE_Q4_0] = &dot_format_q4_0,       [DTYPE_Q4_1] = &dot_format_q4_1,    [DTYPE_Q5_0] = &dot_format_q5_0,
    [DTYPE_Q5_1] = &dot_format_q5_1,       [DTYPE_Q8_0] = &dot_format_q8_0,    [DTYPE_Q2_K] = &dot_format_q2_k,
    [DTYPE_Q3_K] = &dot_format_q3_k,       [DTYPE_Q4_K] = &dot_format_q4_k,    [DTYPE_Q5_K] = &dot_format_q5_k,
    [DTYPE_Q6_K] = &dot_format_q6_k,       [DTYPE_IQ1_S] = &dot_format_iq1_s,  [DTYPE_IQ1_M] = &dot_format_iq1_m,
    [DTYPE_IQ2_XXS] = &dot_format_iq2_xxs, [DTYPE_IQ2_XS] = &dot_format_iq2_s, [DTYPE_IQ2_S] = &dot_format_iq2_s,
    [DTYPE_IQ3_XXS] = &dot_format_iq3_xxs, [DTYPE_IQ3_S] = &dot_format_iq3_s,  [DTYPE_IQ4_NL] = &dot_format_iq4_nl,
    [DTYPE_IQ4_XS] = &dot_format_iq4_xs,   [DTYPE_TQ1_0] = &dot_format_tq,     [DTYPE_TQ2_0] = &dot_format_tq,
    [DTYPE_MXFP4] = &dot_format_mxfp4,
};
#endif
