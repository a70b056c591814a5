/* error.h: turning a failure into a code and a sentence. Every function of the library that fails
 * for a reason the caller can act on ends in error_set(); the sentence names the thing and the
 * limit. Never called on the hit path.
 */
#ifndef LARDER_LIB_ERROR_H
#define LARDER_LIB_ERROR_H

#include "larder.h"

/* Store the sentence for this thread and return code. errno is left as it was. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* The same with ": " and the text of errno (as it was on entry) behind it. */
int error_system(int code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* What it means that a file or directory could not be opened or looked at: ESYSTEM where the
 * process or host has run short (of descriptors, say) or reading failed, else EACCESS. */
int error_of_file(int error);

/* Forget this thread's sentence. */
void error_clear(void);

#ifdef __clang_analyzer__ /* it looks at one file at a time: say that they return their code */
#define error_set(code, ...) ((void)(error_set)((code), __VA_ARGS__), (code))
#define error_system(code, ...) ((void)(error_system)((code), __VA_ARGS__), (code))
#endif

#endif
