/* mm_golden.h - bits of one product per format, computed by mm_golden.py with numpy, not by these
 * kernels: 19 rows, 3 tokens. Data only. */
#ifndef KT_MM_GOLDEN_H
#define KT_MM_GOLDEN_H

/* X(type, columns, first four results, FNV-1a of the bytes of all [3][19] results) */
#define MM_GOLDEN(X)                                                                               \
    X(Q8_0, 1184, 0xc1e16e8eu, 0xc25fc974u, 0xc02b4d18u, 0x4092d6dbu, 0x4fd3887c1087e111u)         \
    X(Q4_0, 1184, 0xbf72f23eu, 0xc00469beu, 0xbfa7b49fu, 0xbf8a050du, 0x6c871f3e40648bc5u)         \
    X(Q4_1, 1184, 0xbfbbae57u, 0xc16898cau, 0xc0f49253u, 0xc0b96fe5u, 0x6b1aeed63a706810u)         \
    X(Q5_0, 1184, 0xbfffd404u, 0x40467cb3u, 0xc132bdc2u, 0xc182c525u, 0x7db171822c816febu)         \
    X(Q5_1, 1184, 0xc10328cau, 0xc1402944u, 0xbf7536f7u, 0xc0cbaafeu, 0x205e4245892b469bu)         \
    X(IQ4_NL, 1184, 0xc197fc0cu, 0xc1c2a69fu, 0xc1abafd5u, 0xc18c31dcu, 0xec9ad97572846075u)       \
    X(MXFP4, 1184, 0xc13efe9eu, 0xc071e8e0u, 0xc15a7533u, 0xbf1135aau, 0xa7d93076788efb6fu)        \
    X(Q4_K, 1536, 0xc2eab8f2u, 0xc31b2847u, 0xc2b3a42fu, 0xc376e326u, 0xb7c66130f86f5e1cu)         \
    X(Q6_K, 1536, 0xc42079d4u, 0x448e3bfcu, 0xc3fbbe1fu, 0x44a27fdau, 0x2310e2add56f64a3u)         \
    X(Q5_K, 1536, 0x43623434u, 0xc3571695u, 0xc329cf26u, 0x4413b397u, 0xcedab40f03e6e9e7u)         \
    X(IQ4_XS, 1536, 0xc45b0a6cu, 0xc4a957ccu, 0xc349ab80u, 0xc272fc80u, 0xd0b91577b476fed0u)       \
    X(Q3_K, 1536, 0xc20d0514u, 0xc2959453u, 0xc202eeb0u, 0xc2994012u, 0xfb258da2a8c93aa3u)         \
    X(Q2_K, 1536, 0x41eca4f2u, 0x412acbdau, 0x40f895dbu, 0x412a8942u, 0xd745998a54cfca19u)         \
    X(INT4, 1184, 0x3ff440a4u, 0xbe7711d0u, 0xc00e473bu, 0x3d7e13e0u, 0x139b71cb32199cbau)         \
    X(FP8, 1100, 0xc44b5cb3u, 0x448c1a06u, 0x4482b9cbu, 0x447ceedcu, 0x18b30374fd8f6576u)          \
    X(INT8, 1184, 0x439e6fe6u, 0xc3c52934u, 0x43a53abcu, 0xc4b1f368u, 0xbe4125f946571270u)         \
    X(BF16, 1100, 0xc05e3080u, 0xbf82692fu, 0x3f17b1cfu, 0x400e3629u, 0xefc8a7e3ecfe5f71u)         \
    X(F16, 1100, 0xc05f1274u, 0xbf827da5u, 0x3f16ebf7u, 0x400ec84au, 0x96bd495c0ad3f678u)          \
    X(F32, 1100, 0xc05f0025u, 0xbf829b5au, 0x3f17edacu, 0x400f37b0u, 0x2c60a30af80ddfd2u)

#endif
