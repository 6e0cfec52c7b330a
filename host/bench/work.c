// SPDX-License-Identifier: MIT
/* The loops that both sides run: compiled once, the same instructions in both programs. */
#include "engine.h"

/* Arithmetic in registers alone, each step waiting for the one before. */
uint64_t work_cpu(uint64_t rounds)
{
	uint64_t x = 88172645463325252u;

	for (uint64_t i = 0; i < rounds; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		x *= 0x9e3779b97f4a7c15u;
	}
	return x;
}

/* Loads and stores all over `words`, each address depending on the word before. */
uint64_t work_memory(uint64_t *words, uint64_t count, uint64_t rounds)
{
	uint64_t x = 1;

	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t *w = &words[(x >> 20) % count];

		x = (x ^ *w) * 6364136223846793005u + 1442695040888963407u;
		*w = i;
	}
	return x;
}
