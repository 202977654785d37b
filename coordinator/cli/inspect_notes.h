/* inspect_notes.h - what `baton inspect` says of a file beyond its contents. */
#ifndef CLI_INSPECT_NOTES_H
#define CLI_INSPECT_NOTES_H
struct gguf;

/* Prints what the coordinator's log says when it loads the file, and why a file is not served. */
void inspect_notes(const struct gguf *g, const char *path);
#endif
