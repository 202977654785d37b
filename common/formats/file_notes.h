/* file_notes.h - what a file lacks or has, so that answers with it are worse than they could be. */
#ifndef FORMATS_FILE_NOTES_H
#define FORMATS_FILE_NOTES_H
#include "formats/gguf.h"

struct vocab;

/* Calls `fn` with a sentence for each shortcoming that does not keep the file from being used.  `v` is the file's. */
void file_notes(const struct gguf *g, const struct vocab *v, void (*fn)(void *arg, const char *note), void *arg);
#endif
