/* A plugin for the simulator's tests, in C with wasi-libc and the bare ABI: hides a word in answers, and sends a line
 * about each through a shared queue to one root, which logs it. It must not need anything but the ABI and WASI. */

#define _GNU_SOURCE /* memmem */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

HOST(proxy_log) uint32_t proxy_log(uint32_t level, const char *text, size_t len);
HOST(proxy_get_buffer_bytes)
uint32_t proxy_get_buffer_bytes(uint32_t buffer, size_t start, size_t max, char **out, size_t *len);
HOST(proxy_set_buffer_bytes)
uint32_t proxy_set_buffer_bytes(uint32_t buffer, size_t start, size_t size, const char *data, size_t len);
HOST(proxy_replace_header_map_value)
uint32_t proxy_replace_header_map_value(uint32_t map, const char *key, size_t key_len, const char *value, size_t len);
HOST(proxy_remove_header_map_value)
uint32_t proxy_remove_header_map_value(uint32_t map, const char *key, size_t key_len);
HOST(proxy_register_shared_queue)
uint32_t proxy_register_shared_queue(const char *name, size_t len, uint32_t *id);
HOST(proxy_enqueue_shared_queue)
uint32_t proxy_enqueue_shared_queue(uint32_t id, const char *data, size_t len);
HOST(proxy_dequeue_shared_queue)
uint32_t proxy_dequeue_shared_queue(uint32_t id, char **out, size_t *len);

enum { LEVEL_INFO = 2, RESPONSE_BODY = 1, RESPONSE_HEADERS = 2, PLUGIN_CONFIG = 7 };
enum { CONTINUE = 0, PAUSE = 1 };

static char word[64] = "secret";
static uint32_t queue;

EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}

EXPORT(malloc) void *exported_malloc(size_t size) { return malloc(size); }

/* A reactor's main: what a C program does first. Nothing writes out what it prints but itself. */
EXPORT(main) int main(int argc, char **argv) {
  const char *stage = getenv("STAGE");
  (void)argv;
  printf("redact starts in %s with %d arguments\n", stage != NULL ? stage : "no stage", argc);
  return fflush(stdout);
}

EXPORT(proxy_on_vm_start) uint32_t proxy_on_vm_start(uint32_t root, size_t size) {
  (void)root, (void)size;
  return proxy_register_shared_queue("audit", 5, &queue) == 0;
}

EXPORT(proxy_on_configure) uint32_t proxy_on_configure(uint32_t root, size_t size) {
  char *config = NULL;
  size_t len = 0;
  (void)root;
  if (size == 0) return 1;
  if (proxy_get_buffer_bytes(PLUGIN_CONFIG, 0, size, &config, &len) != 0) return 0;
  if (len == 0 || len >= sizeof word) {
    fprintf(stderr, "the word must have 1 to %zu bytes, not %zu\n", sizeof word - 1, len);
    return 0;
  }
  memcpy(word, config, len);
  word[len] = '\0';
  free(config);
  return 1;
}

EXPORT(proxy_on_response_headers)
uint32_t proxy_on_response_headers(uint32_t context, uint32_t count, uint32_t end) {
  (void)context, (void)count, (void)end;
  proxy_remove_header_map_value(RESPONSE_HEADERS, "content-length", 14);
  proxy_replace_header_map_value(RESPONSE_HEADERS, "x-redacted", 10, "yes", 3);
  return CONTINUE;
}

EXPORT(proxy_on_response_body)
uint32_t proxy_on_response_body(uint32_t context, size_t size, uint32_t end) {
  char *body = NULL, line[128];
  size_t len = 0, hidden = 0;
  struct timespec now;
  uint8_t random[4];
  if (!end) return PAUSE;
  if (size == 0 || proxy_get_buffer_bytes(RESPONSE_BODY, 0, size, &body, &len) != 0) return CONTINUE;
  for (char *at = body; (at = memmem(at, len - (at - body), word, strlen(word))) != NULL; hidden++) {
    memset(at, '*', strlen(word));
  }
  if (hidden > 0) proxy_set_buffer_bytes(RESPONSE_BODY, 0, size, body, len);
  free(body);
  clock_gettime(CLOCK_REALTIME, &now);
  if (getentropy(random, sizeof random) != 0) return CONTINUE;
  int written = snprintf(line, sizeof line, "context %u hid %zu at %lld", context, hidden, (long long)now.tv_sec);
  proxy_enqueue_shared_queue(queue, line, (size_t)written);
  return CONTINUE;
}

EXPORT(proxy_on_queue_ready) void proxy_on_queue_ready(uint32_t root, uint32_t id) {
  char *line = NULL;
  size_t len = 0;
  (void)root;
  while (proxy_dequeue_shared_queue(id, &line, &len) == 0) {
    proxy_log(LEVEL_INFO, line, len);
    free(line);
  }
}
