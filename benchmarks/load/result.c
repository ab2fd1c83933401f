/* The clock, the measured window, and its results. */
#include "load.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct result result;

uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

void failed(const char *format, ...) {
    if (result.errors++ == 0) {
        va_list values;
        va_start(values, format);
        vsnprintf(result.first_error, sizeof result.first_error, format, values);
        va_end(values);
    }
}

void give_up(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Latencies in nanoseconds, in buckets of 1/64 of a power of two (1.6 %). */
enum { SUB_BITS = 6, BUCKETS = 64 << SUB_BITS };
static uint64_t histogram[BUCKETS];

static unsigned bucket_of(uint64_t value) {
    if (value < 1u << SUB_BITS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (unsigned)((value >> shift) & ((1u << SUB_BITS) - 1));
}

static double bucket_value(unsigned bucket) {
    if (bucket < 1u << SUB_BITS)
        return bucket;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    uint64_t start = ((1u << SUB_BITS) + (bucket & ((1u << SUB_BITS) - 1)));
    return (double)(start << shift);
}

static double quantile_us(double share) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)result.messages);
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (seen > wanted)
            return bucket_value(bucket) / 1000.0;
    }
    return 0;
}

static double processor_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void begin_window(void) {
    result.begins = now() + (uint64_t)(options.warmup * 1e9);
    result.ends = result.begins + (uint64_t)(options.seconds * 1e9);
}

/* True while the run goes on; notes the processor time at the edge of the window. */
int running(void) {
    static int begun;
    uint64_t at = now();
    if (!begun && at >= result.begins) {
        begun = 1;
        result.busy = -processor_seconds();
    }
    if (at < result.ends && result.errors < MAX_ERRORS)
        return 1;
    result.busy += processor_seconds();
    return 0;
}

void count(uint64_t started, uint64_t *own) {
    uint64_t at = now();
    if (at < result.begins || at >= result.ends)
        return;
    result.messages++;
    if (started)
        histogram[bucket_of(at - started)]++;
    if (own)
        ++*own;
}

void print_result(void) {
    double rate = (double)result.messages / options.seconds;
    for (char *c = result.first_error; *c; c++)
        if (*c == '"' || *c == '\\' || *c < ' ')
            *c = '\'';
    printf("{\"mode\": \"%s\", \"connections\": %d, \"idle\": %d, \"drips\": %d, \"bytes\": %zu, "
           "\"lines\": %d, \"seconds\": %.3f, \"messages\": %llu, \"per_second\": %.1f, "
           "\"lines_per_second\": %.1f, \"bytes_per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"fewest\": %llu, \"most\": %llu, "
           "\"starved\": %d, \"lost\": %llu, \"last_cut\": %.3f, \"load_busy\": %.3f, "
           "\"errors\": %d, \"first_error\": \"%s\"}\n",
           options.mode, options.connections, options.idle, options.drips, options.bytes,
           options.lines, options.seconds, (unsigned long long)result.messages, rate,
           rate * options.lines, rate * (double)message_bytes, quantile_us(0.50),
           quantile_us(0.99), (unsigned long long)result.fewest, (unsigned long long)result.most,
           result.starved, (unsigned long long)result.lost, result.last_cut,
           result.busy / options.seconds, result.errors, result.first_error);
}
