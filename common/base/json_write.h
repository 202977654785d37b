/* json_write.h - appends JSON text to a strbuf; reading JSON is jansson's work. */
#ifndef BASE_JSON_WRITE_H
#define BASE_JSON_WRITE_H
#include "base/strbuf.h"

#include <stdint.h>

/* A quoted string of n bytes: control characters escaped, invalid UTF-8 replaced by U+FFFD. */
void json_str(struct strbuf *sb, const char *s, size_t n);
void json_cstr(struct strbuf *sb, const char *s); /* NULL writes null */
/* Shortest text that reads back as the same double; inf and nan write null. */
void json_num(struct strbuf *sb, double v);
#endif
