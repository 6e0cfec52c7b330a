/* SPDX-License-Identifier: MIT */
/* What gcc and its headers have and sparse 0.6.4 has not; included ahead of every program it reads. */
#define __FILE_NAME__ __FILE__
unsigned long long __builtin_ia32_rdtscp(void *aux);
